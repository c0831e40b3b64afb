/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Objects: where each is stored and freed, how many bytes were asked for, for whom. An add-on: it
 * shares the probes' ring and table of pools, and only prebuilt objects have it.
 *
 * Which objects are told is decided by a hash of the handle alone, so that of an object that is
 * told its whole life is. Handles are addresses and used again: STORED is told under the class
 * lock, before anyone else has the handle, FREED before zs_free() gives it back, so the records of
 * one handle stand in the ring in true order.
 */
#include "dialect_core.h"
#include "zs_probe.h"

/* Constants by the time of loading; twin: zpobs/objects.py. */
struct zs_sampling {
	/* Of 2^32: a handle whose hash is below is told. */
	u64 threshold;
	/* Odd. */
	u64 multiplier;
	/* Whether it is told which block an object of zram becomes. */
	u64 blocks;
	/* Whether it is told how long zs_malloc() took. */
	u64 timed;
};
const volatile struct zs_sampling zs_sampling SEC(".rodata.sampling");

/* What a task is about to store: by task, from the owner's call until its return. */
struct zs_object_task {
	/* Cgroup of the page to be stored, 0 if it is not known. */
	u64 cgroup;
	/* zswap: the swap entry of the next page of the folio that is stored. */
	u64 swap;
	/* zram: what zs_malloc() gave last, until its block is told. */
	u64 handle;
	/* When the zs_malloc() that is under way was called, 0 if none is, or none is timed. */
	u64 malloc_ns;
	u32 serial;
	u8 storing_swap;
	u8 in_bio;
	u16 unused;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ZS_OBJECT_TASKS);
	__type(key, u64);
	__type(value, struct zs_object_task);
} zs_object_tasks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct zs_object_losses);
} zs_object_loss SEC(".maps");

/* Where births are told by insert_zspage(): what obj_malloc() put into the newborn on this CPU. */
struct zs_first_object {
	u64 zspage;
	u64 handle;
	u64 object;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct zs_first_object);
} zs_first_objects SEC(".maps");

/* What was told to be stored last on this CPU, and when: what else is told of it bears its time. */
struct zs_last_stored {
	u64 handle;
	u64 time_ns;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct zs_last_stored);
} zs_last_stored SEC(".maps");

static __always_inline void object_lost(u32 what)
{
	u32 at = 0;
	struct zs_object_losses *losses = bpf_map_lookup_elem(&zs_object_loss, &at);

	if (losses && what < ZS_OBJECT_LOSSES)
		__sync_fetch_and_add(&losses->word[what], 1);
}

/* Multiplied, folded, multiplied: twin of zpobs/objects.py, sampled(). */
static __always_inline int is_sampled(u64 handle)
{
	u64 hash = (handle >> 3) * zs_sampling.multiplier;

	hash ^= hash >> 32;
	hash *= zs_sampling.multiplier;
	return hash >> 32 < zs_sampling.threshold;
}

static __always_inline struct zs_pool_entry *object_pool(u64 pool)
{
	struct zs_pool_entry *entry = pool_find(pool);

	if (!entry)
		object_lost(ZS_OBJECT_NO_POOL);
	return entry;
}

static __always_inline int named(struct zs_pool_entry *entry, char third)
{
	/* zram0, zswap123abc: see owner_of() in zpobs/snapshot.py. */
	return entry->name[0] == 'z' && entry->name[1] == third;
}

static __always_inline struct zs_object_task *task_lookup(void)
{
	u64 task = bpf_get_current_task();

	return bpf_map_lookup_elem(&zs_object_tasks, &task);
}

static __always_inline void task_store(struct zs_object_task *told)
{
	u64 task = bpf_get_current_task();

	if (bpf_map_update_elem(&zs_object_tasks, &task, told, BPF_ANY))
		object_lost(ZS_OBJECT_NO_TASK);
}

static __always_inline void task_delete(void)
{
	u64 task = bpf_get_current_task();

	bpf_map_delete_elem(&zs_object_tasks, &task);
}

enum cgroup_subsys_id___objects { memory_cgrp_id___objects };

/* ---- whose a page is -------------------------------------------------------- */

/*
 * The cgroup of a memory control group, told by its id, which is its folder's inode number. That
 * this is one is seen by its cgroup, which points back to it: 0 for anything else.
 */
static __always_inline u64 cgroup_of(u64 memcg)
{
	u64 css = memcg + zs_at_memcg_css();
	u64 cgroup = zs_read(css_cgroup, css);
	u64 back = 0;

	if (!cgroup)
		return 0;
	bpf_probe_read_kernel(&back, sizeof(back),
			      (void *)(cgroup + zs_at_cgroup_subsys() +
				       bpf_core_enum_value(enum cgroup_subsys_id___objects,
							   memory_cgrp_id___objects) *
					       sizeof(u64)));
	return back == css ? zs_read(kernfs_id, zs_read(cgroup_kn, cgroup)) : 0;
}

/*
 * The cgroup that a page is charged to: memcg_data of its first page is the memory control group,
 * or an obj_cgroup that leads to it, with flags in the lowest bits.
 */
static __always_inline u64 page_cgroup(u64 page)
{
	u64 data, found;

	if (!zs_has_memcg_css() || !zs_has_css_cgroup() || !zs_has_cgroup_subsys() ||
	    !zs_has_cgroup_kn() || !zs_has_kernfs_id())
		return 0;
	if (zs_has_page_compound_head()) {
		u64 head = zs_read(page_compound_head, page);

		if (head & 1)
			page = head - 1;
	}
	data = zs_read(folio_memcg, page) & ~7ULL;
	if (!data)
		return 0;
	found = cgroup_of(data);
	if (!found && zs_has_objcg_memcg())
		found = cgroup_of(zs_read(objcg_memcg, data));
	return found;
}

/* ---- the objects ------------------------------------------------------------ */

static __always_inline u64 object_place(u32 class_index)
{
	return class_index | (u64)bpf_get_smp_processor_id() << 32 |
	       (u64)bpf_get_numa_node_id() << 48;
}

static __always_inline void object_told(u64 head, u64 time_ns, u64 handle, u64 third, u64 fourth,
					u64 fifth)
{
	struct zs_record *record = record_begin(head, time_ns, handle);

	if (!record)
		return;
	record->word[3] = third;
	record->word[4] = fourth;
	record->word[5] = fifth;
	record->word[6] = 0;
	record_end(record);
}

static __always_inline void object_stored(u32 flags, u64 zspage, u64 handle, u32 class_index,
					  u64 object, u32 serial)
{
	u32 at = 0;
	struct zs_last_stored *last = bpf_map_lookup_elem(&zs_last_stored, &at);
	u64 now_ns = bpf_ktime_get_ns();

	if (last) {
		last->handle = handle;
		last->time_ns = now_ns;
	}
	object_told(record_head(ZS_KIND_OBJECT_STORED, flags, 0, 0, serial), now_ns, handle, zspage,
		    object_place(class_index), object);
}

/* When an object was stored, if that was told last on this CPU; else now. */
static __always_inline u64 stored_ns(u64 handle)
{
	u32 at = 0;
	struct zs_last_stored *last = bpf_map_lookup_elem(&zs_last_stored, &at);

	return last && last->handle == handle ? last->time_ns : bpf_ktime_get_ns();
}

/* obj_malloc(pool, zspage, handle): as in probes.bpf.c, an allocation, or a move of compaction. */
static __always_inline void obj_malloc_done(u64 pool, u64 zspage, u64 handle, u64 object)
{
	struct zs_pool_entry *entry;
	struct zspage_copy copy = {};
	u32 off_list, moved;

	if (!is_sampled(handle))
		return;
	entry = object_pool(pool);
	if (!entry || zspage_read(&copy, zspage))
		return;
	off_list = zspage_off_list(&copy, zspage);
	moved = off_list && ZS_GET(&copy, zspage_inuse) > 1;
	if (off_list && !moved && ZS_BIRTHS_ON_INSERT) {
		u32 at = 0;
		struct zs_first_object *first = bpf_map_lookup_elem(&zs_first_objects, &at);

		if (first) {
			first->zspage = zspage;
			first->handle = handle;
			first->object = object;
		}
		return;
	}
	object_stored(moved ? ZS_FLAG_MOVED : 0, zspage, handle, ZS_GET_BITS(&copy, zspage_class),
		      object, entry->serial);
}
ON_RETURN(obj_malloc, obj_malloc_done)

/* insert_zspage(class, zspage, fullness): a newborn zspage gets its class, in 6.1. */
static __always_inline void insert_zspage_begun(u64 size_class, u64 zspage, u64 fullness)
{
	u32 at = 0;
	struct zs_first_object *first = bpf_map_lookup_elem(&zs_first_objects, &at);
	struct zs_pool_entry *entry;

	if (!first || first->zspage != zspage)
		return;
	first->zspage = 0;
	entry = object_pool(ZS_READ(zspage_pool, zspage));
	if (entry)
		object_stored(0, zspage, first->handle, ZS_READ(size_class_index, size_class),
			      first->object, entry->serial);
}
ON_ENTRY(insert_zspage, insert_zspage_begun)

/* zs_malloc(pool, size, ...), where its time is wanted. What runs inside another has its place. */
static __always_inline void zs_malloc_begun(u64 pool, u64 size, u64 gfp)
{
	struct zs_object_task *task = task_lookup();
	struct zs_object_task made = {};

	if (task) {
		task->malloc_ns = bpf_ktime_get_ns();
		return;
	}
	made.malloc_ns = bpf_ktime_get_ns();
	task_store(&made);
}
ON_ENTRY(zs_malloc, zs_malloc_begun)

/* How long the call took that ends now, 0 if that is not known; less than 2^32 ns. */
static __always_inline u32 malloc_took(struct zs_object_task *task)
{
	u64 took_ns;

	if (!task->malloc_ns)
		return 0;
	took_ns = bpf_ktime_get_ns() - task->malloc_ns;
	task->malloc_ns = 0;
	return took_ns >> 32 ? (u32)-1 : took_ns;
}

static __always_inline void owner_observed(u64 handle, u64 size, u32 took_ns, u64 cgroup,
					   u32 serial)
{
	u32 flags = cgroup ? ZS_FLAG_OF_PAGE : 0;
	struct zs_record *record = record_begin(
		record_head(ZS_KIND_OBJECT_OWNER, flags, 0, 0, serial), stored_ns(handle), handle);

	if (!record)
		return;
	record->word[3] = (u32)size | (u64)took_ns << 32;
	record->word[4] = cgroup ? cgroup : bpf_get_current_cgroup_id();
	record->word[5] = record->word[6] = 0;
	bpf_get_current_comm(&record->word[5], 2 * sizeof(u64));
	record_end(record);
}

static __always_inline void slot_observed(u32 flags, u64 handle, u64 slot, u32 serial)
{
	object_told(record_head(ZS_KIND_OBJECT_SLOT, flags, 0, 0, serial), stored_ns(handle),
		    handle, slot, 0, 0);
}

/*
 * zs_malloc(pool, size, ...): its caller has the handle only now, so nobody can have freed it.
 * What the caller is about to store is known by its task.
 */
static __always_inline void zs_malloc_done(u64 pool, u64 size, u64 gfp, u64 result)
{
	struct zs_pool_entry *entry = object_pool(pool);
	struct zs_object_task *task = task_lookup(), made = {};
	u64 swap = ZS_UNKNOWN;
	u32 took_ns = 0;

	if (task && zs_sampling.timed) {
		took_ns = malloc_took(task);
		if (!task->storing_swap && !task->in_bio && !task->handle) {
			/* It was there for the time alone. */
			task_delete();
			task = 0;
		}
	}
	if (!entry)
		return;
	if (task && task->storing_swap && named(entry, 's'))
		swap = task->swap++;
	if (result >= (u64)-4095 || !is_sampled(result))
		return;
	/* A folio is stored by one task alone, and zram's writes by one at a time. */
	owner_observed(result, size, took_ns, task ? task->cgroup : 0, entry->serial);
	if (swap != ZS_UNKNOWN) {
		slot_observed(ZS_FLAG_SWAP, result, swap, entry->serial);
	} else if (zs_sampling.blocks && named(entry, 'r')) {
		if (task) {
			task->handle = result;
			task->serial = entry->serial;
			return;
		}
		made.handle = result;
		made.serial = entry->serial;
		task_store(&made);
	}
}
ON_RETURN(zs_malloc, zs_malloc_done)

/* zs_free(pool, handle), at its entry: before it returns another may have the same handle. */
static __always_inline void zs_free_begun(u64 pool, u64 handle, u64 unused)
{
	struct zs_pool_entry *entry;
	struct zs_object_task *task;

	if (!handle || handle >= (u64)-4095 || !is_sampled(handle))
		return;
	entry = object_pool(pool);
	if (!entry)
		return;
	record_words(record_head(ZS_KIND_OBJECT_FREED, 0, 0, 0, entry->serial), handle, 0,
		     object_place(0), 0);
	task = task_lookup();
	if (!task || task->handle != handle)
		return;
	/* A store that came to nothing. */
	task->handle = 0;
	if (!task->in_bio)
		task_delete();
}
ON_ENTRY(zs_free, zs_free_begun)

/* ---- zswap ------------------------------------------------------------------ */

static __always_inline void swap_store_begun(u64 page, u64 swap)
{
	struct zs_object_task told = {.cgroup = page_cgroup(page), .swap = swap, .storing_swap = 1};

	task_store(&told);
}

/* zswap_store(folio): its pages one by one, each by a zs_malloc() of its own. */
static __always_inline void zswap_store_begun(u64 folio, u64 unused, u64 unused_too)
{
	if (zs_has_folio_swap())
		swap_store_begun(folio, zs_read(folio_swap, folio));
}
ON_ENTRY(zswap_store, zswap_store_begun)

static __always_inline void zswap_store_done(u64 folio, u64 unused, u64 unused_too, u64 result)
{
	task_delete();
}
ON_RETURN(zswap_store, zswap_store_done)

/* zswap_frontswap_store(type, offset, page), before 6.6; swp_entry() of include/linux/swapops.h. */
static __always_inline void frontswap_store_begun(u64 type, u64 offset, u64 page)
{
	swap_store_begun(page, (type & 0xffffffff) << ZS_SWAP_TYPE_SHIFT | offset);
}
ON_ENTRY(zswap_frontswap_store, frontswap_store_begun)

static __always_inline void frontswap_store_done(u64 type, u64 offset, u64 page, u64 result)
{
	task_delete();
}
ON_RETURN(zswap_frontswap_store, frontswap_store_done)

/* ---- zram ------------------------------------------------------------------- */

/* zram_submit_bio(bio): who has the first of its pages. */
static __always_inline void zram_bio_begun(u64 bio, u64 unused, u64 unused_too)
{
	struct zs_object_task told = {.in_bio = 1};

	if (zs_has_bio_vec() && zs_has_bvec_page())
		told.cgroup = page_cgroup(zs_read(bvec_page, zs_read(bio_vec, bio)));
	task_store(&told);
}
ON_ENTRY(zram_submit_bio, zram_bio_begun)

static __always_inline void zram_bio_done(u64 bio, u64 unused, u64 unused_too, u64 result)
{
	task_delete();
}
ON_RETURN(zram_submit_bio, zram_bio_done)

/*
 * slot_free(zram, index), before 7.2 zram_free_page(): what the block had before goes, after the
 * new object was made (zram_write_page() and recompress_slot() of zram_drv.c): so the index of the
 * last handle of this task is known.
 */
static __always_inline void zram_slot_begun(u64 zram, u64 index, u64 unused)
{
	struct zs_object_task *task = task_lookup();

	if (!task || !task->handle)
		return;
	slot_observed(0, task->handle, index & 0xffffffff, task->serial);
	task->handle = 0;
	if (!task->in_bio)
		task_delete();
}
ON_ENTRY(slot_free, zram_slot_begun)
ON_ENTRY(zram_free_page, zram_slot_begun)
