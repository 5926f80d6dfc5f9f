// SPDX-License-Identifier: GPL-2.0
/*
 * Trace events of guest_integrity, and functions that Rust emits them with.
 */

#define CREATE_TRACE_POINTS
#include "guest_integrity.h"
#include "emit.h"

void guest_trace_integrity_finding(pid_t pid, pid_t tgid, const char *comm, u32 cpu,
				   const char *view, const char *reason)
{
	trace_guest_integrity_finding(pid, tgid, comm, cpu, view, reason);
}

void guest_trace_integrity_object(const char *kind, const char *object, const char *target,
				  const char *view, const char *reason)
{
	trace_guest_integrity_object(kind, object, target, view, reason);
}

void guest_trace_integrity_scan(u64 scan, u64 duration_ns, u32 queued, u32 listed, u32 findings,
				bool complete)
{
	trace_guest_integrity_scan(scan, duration_ns, queued, listed, findings, complete);
}
