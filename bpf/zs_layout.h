/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Every kernel structure member that zpobs reads, once. Most structures are
 * private to mm/zsmalloc.c, so no kernel header declares them: places come
 * from the running kernel's BTF. Python reads these lines as data
 * (zpobs/kernel/layout.py) and hands the places to the bcc dialect as
 * constants; zs_core.h turns each line into CO-RE accessors, which libbpf
 * resolves. A line is never chosen by kernel version, only by what BTF has.
 *
 *   ZS_FIELD(name, struct, type, member)    a whole member
 *   ZS_BITS(name, struct, member)           a bit-field member of at most 32 bits
 *   ZS_EITHER(name, struct, type, member, older struct, type, member)
 *
 * Types: u32, u64, ptr and atomic are read whole, record is a structure
 * that is only located, NAME_array an array of either. ZS_WALK_ lines are the
 * scanner's alone, and a kernel may lack them.
 */

ZS_BITS(zspage_huge, zspage, huge)
/* Two bits and four groups in 6.1; four bits and twelve groups later. */
ZS_BITS(zspage_fullness, zspage, fullness)
ZS_BITS(zspage_class, zspage, class)
ZS_FIELD(zspage_inuse, zspage, u32, inuse)
ZS_FIELD(zspage_freeobj, zspage, u32, freeobj)
ZS_FIELD(zspage_list, zspage, record, list)
ZS_FIELD(zspage_pool, zspage, ptr, pool)
/* zsmalloc's pages got a descriptor of their own, struct zpdesc, in 6.14. */
ZS_EITHER(zspage_first, zspage, ptr, first_zpdesc, zspage, ptr, first_page)

/* struct zpdesc lies over struct page; older kernels use the page's own words. */
ZS_EITHER(zpdesc_next, zpdesc, ptr, next, page, u64, index)
ZS_EITHER(zpdesc_zspage, zpdesc, ptr, zspage, page, u64, private)

ZS_FIELD(size_class_size, size_class, u32, size)
ZS_FIELD(size_class_objs_per_zspage, size_class, u32, objs_per_zspage)
ZS_FIELD(size_class_pages_per_zspage, size_class, u32, pages_per_zspage)
ZS_FIELD(size_class_index, size_class, u32, index)

ZS_FIELD(zs_pool_name, zs_pool, ptr, name)
ZS_FIELD(zs_pool_size_class, zs_pool, ptr_array, size_class)
ZS_FIELD(zs_pool_free_work, zs_pool, record, free_work)
ZS_FIELD(zs_pool_compacting, zs_pool, atomic, compaction_in_progress)

/* ---- the scanner's ---- */

ZS_WALK_BITS(zspage_magic, zspage, magic)
/* A lock and a count of holders (6.16 on); before, a rwlock. */
ZS_WALK_EITHER(zspage_lock, zspage, record, zsl, zspage, record, lock)
ZS_WALK_FIELD(zspage_lock_holders, zspage_lock, u32, cnt)
/* Counts by enum class_stat_type: groups, then capacity, then objects in use. */
ZS_WALK_FIELD(size_class_lists, size_class, record_array, fullness_list)
ZS_WALK_FIELD(size_class_stats, size_class, record, stats)
ZS_WALK_FIELD(zs_pool_pages, zs_pool, record, pages_allocated)
ZS_WALK_FIELD(zs_pool_stats, zs_pool, record, stats)
ZS_WALK_FIELD(zs_pool_shrinker, zs_pool, record, shrinker)
ZS_WALK_EITHER(zpdesc_flags, zpdesc, u64, flags, page, u64, flags)
ZS_WALK_EITHER(zpdesc_offset, zpdesc, u32, first_obj_offset, page, u32, page_type)
ZS_WALK_EITHER(zpdesc_refcount, zpdesc, atomic, _refcount, page, atomic, _refcount)

/* From a descriptor of our own to what it stands for. */
ZS_WALK_FIELD(task_files, task_struct, ptr, files)
ZS_WALK_FIELD(files_fdt, files_struct, ptr, fdt)
ZS_WALK_FIELD(fdtable_fd, fdtable, ptr, fd)
ZS_WALK_FIELD(file_mapping, file, ptr, f_mapping)
ZS_WALK_FIELD(file_inode, file, ptr, f_inode)
ZS_WALK_FIELD(inode_sb, inode, ptr, i_sb)
ZS_WALK_FIELD(mapping_pages, address_space, record, i_pages)
ZS_WALK_FIELD(xarray_head, xarray, ptr, xa_head)
ZS_WALK_FIELD(xa_node_slots, xa_node, ptr_array, slots)
ZS_WALK_FIELD(page_mapping, page, ptr, mapping)
/* A pointer from 6.7 on, embedded before. */
ZS_WALK_FIELD(sb_shrinker, super_block, ptr, s_shrink)
ZS_WALK_FIELD(sb_shrinker_embedded, super_block, record, s_shrink)
ZS_WALK_FIELD(shrinker_list, shrinker, record, list)
ZS_WALK_FIELD(shrinker_scan, shrinker, ptr, scan_objects)
ZS_WALK_FIELD(shrinker_owner, shrinker, ptr, private_data)

/* ---- the objects': whose a page is; any kernel may lack any of them ---- */

ZS_OWNER_EITHER(folio_memcg, folio, u64, memcg_data, page, u64, memcg_data)
/* A struct of one word; before 6.6 the caller of zswap gives it by itself. */
ZS_OWNER_FIELD(folio_swap, folio, record, swap)
ZS_OWNER_FIELD(page_compound_head, page, u64, compound_head)
ZS_OWNER_FIELD(objcg_memcg, obj_cgroup, ptr, memcg)
ZS_OWNER_FIELD(memcg_css, mem_cgroup, record, css)
ZS_OWNER_FIELD(css_cgroup, cgroup_subsys_state, ptr, cgroup)
ZS_OWNER_FIELD(cgroup_subsys, cgroup, ptr_array, subsys)
ZS_OWNER_FIELD(cgroup_kn, cgroup, ptr, kn)
ZS_OWNER_FIELD(kernfs_id, kernfs_node, u64, id)
ZS_OWNER_FIELD(bio_vec, bio, ptr, bi_io_vec)
ZS_OWNER_FIELD(bvec_page, bio_vec, ptr, bv_page)
