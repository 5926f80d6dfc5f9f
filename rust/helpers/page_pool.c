// SPDX-License-Identifier: GPL-2.0

#include <net/page_pool/helpers.h>

__rust_helper void rust_helper_page_pool_fragment_page(struct page *page, long nr)
{
	page_pool_fragment_page(page, nr);
}

__rust_helper void rust_helper_page_pool_free_va(struct page_pool *pool, void *va,
						 bool allow_direct)
{
	page_pool_free_va(pool, va, allow_direct);
}

__rust_helper void rust_helper_page_pool_put_full_page(struct page_pool *pool, struct page *page,
						       bool allow_direct)
{
	page_pool_put_full_page(pool, page, allow_direct);
}

__rust_helper struct netmem_desc *rust_helper_pp_page_to_nmdesc(struct page *page)
{
	return pp_page_to_nmdesc(page);
}

__rust_helper struct page *rust_helper_virt_to_head_page(const void *x)
{
	return virt_to_head_page(x);
}

__rust_helper void *rust_helper_page_address(const struct page *page)
{
	return page_address(page);
}

__rust_helper bool rust_helper_dev_page_is_reusable(const struct page *page)
{
	return dev_page_is_reusable(page);
}
