// SPDX-License-Identifier: GPL-2.0

#include <linux/cc_platform.h>
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/swap.h>
#include <linux/vmstat.h>

__rust_helper unsigned long rust_helper_alloc_pages_bulk(gfp_t gfp, unsigned long nr_pages,
							 struct page **page_array)
{
	return alloc_pages_bulk(gfp, nr_pages, page_array);
}

__rust_helper bool rust_helper_cc_guest_mem_encrypt(void)
{
	return cc_platform_has(CC_ATTR_GUEST_MEM_ENCRYPT);
}

__rust_helper void rust_helper_get_page(struct page *page)
{
	get_page(page);
}

__rust_helper long rust_helper_get_nr_swap_pages(void)
{
	return get_nr_swap_pages();
}

__rust_helper unsigned long rust_helper_global_node_page_state(enum node_stat_item item)
{
	return global_node_page_state(item);
}

__rust_helper bool rust_helper_page_poisoning_enabled_static(void)
{
	return page_poisoning_enabled_static();
}

__rust_helper unsigned long rust_helper_page_to_pfn(const struct page *page)
{
	return page_to_pfn(page);
}

__rust_helper struct zone *rust_helper_page_zone(const struct page *page)
{
	return page_zone(page);
}

__rust_helper struct page *rust_helper_pfn_to_page(unsigned long pfn)
{
	return pfn_to_page(pfn);
}

__rust_helper struct page *rust_helper_virt_to_page(const void *x)
{
	return virt_to_page(x);
}

__rust_helper bool rust_helper_want_init_on_free(void)
{
	return want_init_on_free();
}
