/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Headers that the kernel crate's own bindings lack. Sorted alphabetically.
 */

#include <linux/audit.h>
#include <linux/balloon.h>
#include <linux/bpf.h>
#include <linux/cpuhotplug.h>
#include <linux/dim.h>
#include <linux/etherdevice.h>
#include <linux/ethtool.h>
#include <linux/filter.h>
#include <linux/hw_random.h>
#include <linux/kallsyms.h>
#include <linux/kmod.h>
#include <linux/magic.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/oom.h>
#include <linux/page_reporting.h>
#include <linux/poison.h>
#include <linux/shrinker.h>
#include <linux/skbuff.h>
#include <linux/u64_stats_sync.h>
#include <linux/utsname.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/vmstat.h>
#include <net/checksum.h>
#include <net/net_failover.h>
#include <net/netdev_queues.h>
#include <net/page_pool/helpers.h>
#include <net/xdp.h>
#include <net/xdp_sock_drv.h>

#include <uapi/linux/virtio_balloon.h>
#include <uapi/linux/virtio_ids.h>
#include <uapi/linux/virtio_net.h>
#include <uapi/linux/virtio_ring.h>
#include <uapi/linux/vm_sockets.h>

#include "../trace/emit.h"

/*
 * `bindgen` does not evaluate macros that are expressions, but it does constants.
 */
const gfp_t RUST_CONST_HELPER_GFP_HIGHUSER_MOVABLE = GFP_HIGHUSER_MOVABLE;
const gfp_t RUST_CONST_HELPER___GFP_NOMEMALLOC = __GFP_NOMEMALLOC;
const gfp_t RUST_CONST_HELPER___GFP_NORETRY = __GFP_NORETRY;
const gfp_t RUST_CONST_HELPER___GFP_RECLAIM = __GFP_RECLAIM;
const u32 RUST_CONST_HELPER_DIM_COALESCE_PKTS = DIM_COALESCE_PKTS;
const u32 RUST_CONST_HELPER_DIM_COALESCE_USEC = DIM_COALESCE_USEC;
const u32 RUST_CONST_HELPER_DIM_PROFILE_RX = DIM_PROFILE_RX;
const u32 RUST_CONST_HELPER_ETHTOOL_COALESCE_MAX_FRAMES = ETHTOOL_COALESCE_MAX_FRAMES;
const u32 RUST_CONST_HELPER_ETHTOOL_COALESCE_USECS = ETHTOOL_COALESCE_USECS;
const u32 RUST_CONST_HELPER_ETHTOOL_COALESCE_USE_ADAPTIVE_RX =
	ETHTOOL_COALESCE_USE_ADAPTIVE_RX;
const u32 RUST_CONST_HELPER_ETHTOOL_OP_NEEDS_RTNL_GLINK = ETHTOOL_OP_NEEDS_RTNL_GLINK;
const u32 RUST_CONST_HELPER_ETHTOOL_OP_NEEDS_RTNL_SCHANNELS =
	ETHTOOL_OP_NEEDS_RTNL_SCHANNELS;
const u32 RUST_CONST_HELPER_ETHTOOL_OP_NEEDS_RTNL_SCOALESCE =
	ETHTOOL_OP_NEEDS_RTNL_SCOALESCE;
const u32 RUST_CONST_HELPER_ETHTOOL_OP_NEEDS_RTNL_SRINGPARAM =
	ETHTOOL_OP_NEEDS_RTNL_SRINGPARAM;
const u32 RUST_CONST_HELPER_ETH_RSS_HASH_TOP = ETH_RSS_HASH_TOP;
const u32 RUST_CONST_HELPER_KSYM_SYMBOL_LEN = KSYM_SYMBOL_LEN;
const u32 RUST_CONST_HELPER_L1_CACHE_BYTES = L1_CACHE_BYTES;
const u32 RUST_CONST_HELPER_MAX_PAGE_ORDER = MAX_PAGE_ORDER;
const u32 RUST_CONST_HELPER_NETDEV_RSS_KEY_LEN = NETDEV_RSS_KEY_LEN;
const u16 RUST_CONST_HELPER_CSUM_MANGLED_0 = (__force u16)CSUM_MANGLED_0;
const u8 RUST_CONST_HELPER_PAGE_POISON = PAGE_POISON;
const unsigned long RUST_CONST_HELPER_SHRINK_EMPTY = SHRINK_EMPTY;
const unsigned long RUST_CONST_HELPER_SHRINK_STOP = SHRINK_STOP;
const u32 RUST_CONST_HELPER_SKB_SHINFO_SIZE = SKB_DATA_ALIGN(sizeof(struct skb_shared_info));
