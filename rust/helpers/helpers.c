// SPDX-License-Identifier: GPL-2.0
/*
 * C helpers for Rust: inline functions and macros of the kernel that the crate `guest` calls, as functions that a linker
 * can find. They hold no logic.
 *
 * Sorted alphabetically.
 */

#define __rust_helper

/* The object is part of all modules. The list of their names is too long for messages that headers make of it. */
#undef KBUILD_MODNAME
#define KBUILD_MODNAME "guest"

#include "balloon.c"
#include "bottom_half.c"
#include "device.c"
#include "mm.c"
#include "netdevice.c"
#include "page_pool.c"
#include "scatterlist.c"
#include "sched.c"
#include "skbuff.c"
#include "virtio.c"
#include "xdp.c"
#include "xsk.c"
