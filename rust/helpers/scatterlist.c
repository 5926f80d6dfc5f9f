// SPDX-License-Identifier: GPL-2.0

#include <linux/scatterlist.h>

__rust_helper void *rust_helper_sg_virt(struct scatterlist *sg)
{
	return sg_virt(sg);
}

__rust_helper void rust_helper_sg_fill_dma(struct scatterlist *sg, dma_addr_t addr, unsigned int len)
{
	sg_dma_address(sg) = addr;
	sg_dma_len(sg) = len;
}
