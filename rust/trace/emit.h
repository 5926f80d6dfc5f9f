/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Functions that emit trace events for Rust. Each is in the file of the module that the events belong to.
 */

#ifndef _GUEST_TRACE_EMIT_H
#define _GUEST_TRACE_EMIT_H

#include <linux/types.h>

void guest_trace_balloon_inflate(int device, u32 pages, u32 pending);
void guest_trace_balloon_deflate(int device, u32 pages, u32 pending);
void guest_trace_balloon_report(int device, u64 bytes);
void guest_trace_balloon_target(int device, u32 wanted, u32 allowed, const char *limit);

void guest_trace_integrity_finding(pid_t pid, pid_t tgid, const char *comm, u32 cpu,
				   const char *view, const char *reason);
void guest_trace_integrity_object(const char *kind, const char *object, const char *target,
				  const char *view, const char *reason);
void guest_trace_integrity_scan(u64 scan, u64 duration_ns, u32 queued, u32 listed, u32 findings,
				bool complete);

#endif /* _GUEST_TRACE_EMIT_H */
