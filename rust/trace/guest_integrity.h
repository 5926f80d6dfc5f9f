/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM guest_integrity

#if !defined(_GUEST_TRACE_INTEGRITY_H) || defined(TRACE_HEADER_MULTI_READ)
#define _GUEST_TRACE_INTEGRITY_H

#include <linux/sched.h>
#include <linux/tracepoint.h>

/* A task that one view has and another lacks. Its name comes escaped: it has no spaces and no '='. */
TRACE_EVENT(guest_integrity_finding,

	TP_PROTO(pid_t pid, pid_t tgid, const char *comm, u32 cpu, const char *view,
		 const char *reason),

	TP_ARGS(pid, tgid, comm, cpu, view, reason),

	TP_STRUCT__entry(
		__field(pid_t, pid)
		__field(pid_t, tgid)
		__string(comm, comm)
		__field(u32, cpu)
		__string(view, view)
		__string(reason, reason)
	),

	TP_fast_assign(
		__entry->pid = pid;
		__entry->tgid = tgid;
		__assign_str(comm);
		__entry->cpu = cpu;
		__assign_str(view);
		__assign_str(reason);
	),

	TP_printk("pid=%d tgid=%d comm=%s cpu=%u view=%s reason=%s",
		  __entry->pid, __entry->tgid, __get_str(comm), __entry->cpu, __get_str(view),
		  __get_str(reason))
);

/* Something that is no task. Its names come escaped, as above. */
TRACE_EVENT(guest_integrity_object,

	TP_PROTO(const char *kind, const char *object, const char *target, const char *view,
		 const char *reason),

	TP_ARGS(kind, object, target, view, reason),

	TP_STRUCT__entry(
		__string(kind, kind)
		__string(object, object)
		__string(target, target)
		__string(view, view)
		__string(reason, reason)
	),

	TP_fast_assign(
		__assign_str(kind);
		__assign_str(object);
		__assign_str(target);
		__assign_str(view);
		__assign_str(reason);
	),

	TP_printk("type=%s %s target=%s view=%s reason=%s", __get_str(kind), __get_str(object),
		  __get_str(target), __get_str(view), __get_str(reason))
);

/* A scan is done. */
TRACE_EVENT(guest_integrity_scan,

	TP_PROTO(u64 scan, u64 duration_ns, u32 queued, u32 listed, u32 findings, bool complete),

	TP_ARGS(scan, duration_ns, queued, listed, findings, complete),

	TP_STRUCT__entry(
		__field(u64, scan)
		__field(u64, duration_ns)
		__field(u32, queued)
		__field(u32, listed)
		__field(u32, findings)
		__field(bool, complete)
	),

	TP_fast_assign(
		__entry->scan = scan;
		__entry->duration_ns = duration_ns;
		__entry->queued = queued;
		__entry->listed = listed;
		__entry->findings = findings;
		__entry->complete = complete;
	),

	TP_printk("scan=%llu duration_ns=%llu queued=%u listed=%u findings=%u complete=%d",
		  __entry->scan, __entry->duration_ns, __entry->queued, __entry->listed,
		  __entry->findings, __entry->complete)
);

#endif /* _GUEST_TRACE_INTEGRITY_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE guest_integrity
#include <trace/define_trace.h>
