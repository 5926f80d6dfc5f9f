// SPDX-License-Identifier: GPL-2.0

#include <linux/filter.h>
#include <net/checksum.h>
#include <net/xdp.h>
#include <trace/events/xdp.h>

__rust_helper u32 rust_helper_bpf_prog_run_xdp(const struct bpf_prog *prog, struct xdp_buff *xdp)
{
	return bpf_prog_run_xdp(prog, xdp);
}

__rust_helper struct xdp_frame *rust_helper_xdp_convert_buff_to_frame(struct xdp_buff *xdp)
{
	return xdp_convert_buff_to_frame(xdp);
}

__rust_helper bool rust_helper_xdp_buff_add_frag(struct xdp_buff *xdp, netmem_ref netmem,
						 u32 offset, u32 size, u32 truesize)
{
	return xdp_buff_add_frag(xdp, netmem, offset, size, truesize);
}

__rust_helper netmem_ref rust_helper_page_to_netmem(struct page *page)
{
	return page_to_netmem(page);
}

__rust_helper bool rust_helper_xdp_buff_has_frags(const struct xdp_buff *xdp)
{
	return xdp_buff_has_frags(xdp);
}

__rust_helper struct skb_shared_info *
rust_helper_xdp_get_shared_info_from_buff(const struct xdp_buff *xdp)
{
	return xdp_get_shared_info_from_buff(xdp);
}

__rust_helper bool rust_helper_xdp_frame_has_frags(const struct xdp_frame *frame)
{
	return xdp_frame_has_frags(frame);
}

__rust_helper struct skb_shared_info *
rust_helper_xdp_get_shared_info_from_frame(const struct xdp_frame *frame)
{
	return xdp_get_shared_info_from_frame(frame);
}

__rust_helper unsigned int rust_helper_xdp_get_frame_len(const struct xdp_frame *xdpf)
{
	return xdp_get_frame_len(xdpf);
}

__rust_helper int rust_helper_xdp_rxq_info_reg(struct xdp_rxq_info *xdp_rxq,
					       struct net_device *dev, u32 queue_index,
					       unsigned int napi_id)
{
	return xdp_rxq_info_reg(xdp_rxq, dev, queue_index, napi_id);
}

__rust_helper void rust_helper_trace_xdp_exception(const struct net_device *dev,
						   const struct bpf_prog *xdp, u32 act)
{
	trace_xdp_exception(dev, xdp, act);
}

__rust_helper __wsum rust_helper_csum_block_add(__wsum csum, __wsum csum2, int offset)
{
	return csum_block_add(csum, csum2, offset);
}

__rust_helper __sum16 rust_helper_csum_fold(__wsum csum)
{
	return csum_fold(csum);
}
