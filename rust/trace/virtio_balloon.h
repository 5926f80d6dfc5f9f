/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM virtio_balloon_rust

#if !defined(_GUEST_TRACE_BALLOON_H) || defined(TRACE_HEADER_MULTI_READ)
#define _GUEST_TRACE_BALLOON_H

#include <linux/tracepoint.h>

/* Pages of 4 KiB that have changed sides, and how many of the same kind the device has not answered for. */
DECLARE_EVENT_CLASS(virtio_balloon_rust_list,

	TP_PROTO(int device, u32 pages, u32 pending),

	TP_ARGS(device, pages, pending),

	TP_STRUCT__entry(
		__field(int, device)
		__field(u32, pages)
		__field(u32, pending)
	),

	TP_fast_assign(
		__entry->device = device;
		__entry->pages = pages;
		__entry->pending = pending;
	),

	TP_printk("device=virtio%d pages=%u pending=%u",
		  __entry->device, __entry->pages, __entry->pending)
);

/* The device was given pages. */
DEFINE_EVENT(virtio_balloon_rust_list, virtio_balloon_rust_inflate,
	TP_PROTO(int device, u32 pages, u32 pending),
	TP_ARGS(device, pages, pending));

/* The device was told to give pages back. */
DEFINE_EVENT(virtio_balloon_rust_list, virtio_balloon_rust_deflate,
	TP_PROTO(int device, u32 pages, u32 pending),
	TP_ARGS(device, pages, pending));

/* The device knows of free memory. */
TRACE_EVENT(virtio_balloon_rust_report,

	TP_PROTO(int device, u64 bytes),

	TP_ARGS(device, bytes),

	TP_STRUCT__entry(
		__field(int, device)
		__field(u64, bytes)
	),

	TP_fast_assign(
		__entry->device = device;
		__entry->bytes = bytes;
	),

	TP_printk("device=virtio%d bytes=%llu", __entry->device, __entry->bytes)
);

/* What the device asks for, in pages of 4 KiB, and what the guest allows, which has changed. */
TRACE_EVENT(virtio_balloon_rust_target,

	TP_PROTO(int device, u32 wanted, u32 allowed, const char *limit),

	TP_ARGS(device, wanted, allowed, limit),

	TP_STRUCT__entry(
		__field(int, device)
		__field(u32, wanted)
		__field(u32, allowed)
		__string(limit, limit)
	),

	TP_fast_assign(
		__entry->device = device;
		__entry->wanted = wanted;
		__entry->allowed = allowed;
		__assign_str(limit);
	),

	TP_printk("device=virtio%d wanted=%u allowed=%u limit=%s",
		  __entry->device, __entry->wanted, __entry->allowed, __get_str(limit))
);

#endif /* _GUEST_TRACE_BALLOON_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE virtio_balloon
#include <trace/define_trace.h>
