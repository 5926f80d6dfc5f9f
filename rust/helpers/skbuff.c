// SPDX-License-Identifier: GPL-2.0

#include <linux/skbuff.h>
#include <linux/virtio_net.h>

__rust_helper void *rust_helper_skb_frag_address(const skb_frag_t *frag)
{
	return skb_frag_address(frag);
}

__rust_helper void rust_helper_skb_add_rx_frag(struct sk_buff *skb, int i, struct page *page,
					       int off, int size, unsigned int truesize)
{
	skb_add_rx_frag(skb, i, page, off, size, truesize);
}

__rust_helper struct sk_buff *rust_helper_alloc_skb(unsigned int size, gfp_t priority)
{
	return alloc_skb(size, priority);
}

__rust_helper bool rust_helper_pskb_may_pull(struct sk_buff *skb, unsigned int len)
{
	return pskb_may_pull(skb, len);
}

__rust_helper void rust_helper_skb_tx_timestamp(struct sk_buff *skb)
{
	skb_tx_timestamp(skb);
}

__rust_helper int rust_helper_virtio_net_hdr_to_skb(struct sk_buff *skb,
						    const struct virtio_net_hdr *hdr,
						    bool little_endian)
{
	return virtio_net_hdr_to_skb(skb, hdr, little_endian);
}

__rust_helper int
rust_helper_virtio_net_hdr_tnl_to_skb(struct sk_buff *skb,
				      const struct virtio_net_hdr_v1_hash_tunnel *vhdr,
				      bool tnl_hdr_negotiated, bool tnl_csum_negotiated,
				      bool little_endian)
{
	return virtio_net_hdr_tnl_to_skb(skb, vhdr, tnl_hdr_negotiated, tnl_csum_negotiated,
					 little_endian);
}

__rust_helper void rust_helper_skb_metadata_set(struct sk_buff *skb, u8 meta_len)
{
	skb_metadata_set(skb, meta_len);
}
