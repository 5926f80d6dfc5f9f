// SPDX-License-Identifier: GPL-2.0

#include <linux/scatterlist.h>

__rust_helper void *rust_helper_sg_virt(struct scatterlist *sg)
{
	return sg_virt(sg);
}
