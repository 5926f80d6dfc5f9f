// SPDX-License-Identifier: GPL-2.0
/*
 * Trace events of virtio_balloon_rust, and functions that Rust emits them with.
 */

#define CREATE_TRACE_POINTS
#include "virtio_balloon.h"
#include "emit.h"

void guest_trace_balloon_inflate(int device, u32 pages, u32 pending)
{
	trace_virtio_balloon_rust_inflate(device, pages, pending);
}

void guest_trace_balloon_deflate(int device, u32 pages, u32 pending)
{
	trace_virtio_balloon_rust_deflate(device, pages, pending);
}

void guest_trace_balloon_report(int device, u64 bytes)
{
	trace_virtio_balloon_rust_report(device, bytes);
}

void guest_trace_balloon_target(int device, u32 wanted, u32 allowed, const char *limit)
{
	trace_virtio_balloon_rust_target(device, wanted, allowed, limit);
}
