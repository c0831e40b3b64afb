/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Every kernel structure member that zpobs reads, once. The structures are
 * private to mm/zsmalloc.c, so no kernel header declares them: places come
 * from the running kernel's BTF. Python reads these lines as data
 * (zpobs/kernel/layout.py) and hands the places to the bcc dialect as
 * constants; the CO-RE dialect includes this file and lets libbpf resolve
 * them. A line is never chosen by kernel version, only by what BTF has.
 *
 *   ZS_FIELD(name, struct, member)    a whole member
 *   ZS_BITS(name, struct, member)     a bit-field member of at most 32 bits
 *   ZS_EITHER(name, newer struct, member, older struct, member)
 */

ZS_BITS(zspage_huge, zspage, huge)
/* Two bits and four groups in 6.1; four bits and twelve groups later. */
ZS_BITS(zspage_fullness, zspage, fullness)
ZS_BITS(zspage_class, zspage, class)
ZS_FIELD(zspage_inuse, zspage, inuse)
ZS_FIELD(zspage_freeobj, zspage, freeobj)
ZS_FIELD(zspage_list, zspage, list)
ZS_FIELD(zspage_pool, zspage, pool)
/* zsmalloc's pages got a descriptor of their own, struct zpdesc, in 6.14. */
ZS_EITHER(zspage_first, zspage, first_zpdesc, zspage, first_page)

/* struct zpdesc lies over struct page; older kernels use the page's own words. */
ZS_EITHER(zpdesc_next, zpdesc, next, page, index)
ZS_EITHER(zpdesc_zspage, zpdesc, zspage, page, private)

ZS_FIELD(size_class_size, size_class, size)
ZS_FIELD(size_class_objs_per_zspage, size_class, objs_per_zspage)
ZS_FIELD(size_class_pages_per_zspage, size_class, pages_per_zspage)
ZS_FIELD(size_class_index, size_class, index)

ZS_FIELD(zs_pool_name, zs_pool, name)
ZS_FIELD(zs_pool_size_class, zs_pool, size_class)
ZS_FIELD(zs_pool_free_work, zs_pool, free_work)
