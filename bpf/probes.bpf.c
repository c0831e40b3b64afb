/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The probes: kernel functions of mm/zsmalloc.c -> observations (zs_wire.h) and
 * per-CPU counters. Written once for two loaders: dialect_*.h supplies maps,
 * member access, and ON_ENTRY and ON_RETURN, which make the programs.
 *
 * A zspage's state is read, and its record reserved, while the class lock
 * (before 6.12: the pool lock) is held, so records of one zspage stand in the
 * ring in the order in which its states held. obj_malloc, fix_fullness_group,
 * putback_zspage and trylock_zspage run under that lock; what runs outside
 * tells of events, and zs_page_migrate of the page chain, see there.
 */

/* bcc gets one text, in which its dialect and zs_probe.h stand before this. */
#ifndef ZS_DIALECT
#include "dialect_core.h"
#include "zs_probe.h"
#endif

/* ---- pools ---------------------------------------------------------------- */

static __always_inline void pool_read_name(u64 pool, struct zs_pool_entry *entry)
{
	u64 name = ZS_READ(zs_pool_name, pool);

	bpf_probe_read_kernel_str(entry->name, sizeof(entry->name), (void *)name);
}

static __always_inline void pool_record(u64 pool, struct zs_pool_entry *entry)
{
	u32 flags = entry->late ? ZS_FLAG_LATE : 0;
	struct zs_record *record;

	record = record_begin(
		record_head(ZS_KIND_POOL_CREATED, flags, entry->slot, 0, entry->serial),
		entry->since_ns, pool);
	if (!record)
		return;
	__builtin_memcpy(&record->word[3], entry->name, ZS_NAME_BYTES);
	record_end(record);
}

static __always_inline void pool_register(u64 pool, u64 late)
{
	struct zs_pool_entry entry = {};
	u64 place = 0;

	entry.since_ns = bpf_ktime_get_ns();
	entry.late = late;
	if (free_places_pop(&place) == 0) {
		entry.serial = place >> 8;
		entry.slot = place & (ZS_POOLS_MAX - 1);
		pool_read_name(pool, &entry);
	}
	/*
	 * The table first: whoever reads the record finds the entry. If another
	 * CPU has entered the pool meanwhile, this place is never used, which
	 * user space notices, and takes it back.
	 */
	if (pools_insert(pool, &entry) == 0 && entry.serial)
		pool_record(pool, &entry);
}

/* The entry of a pool that is in use, met here for the first time or not. */
static __always_inline struct zs_pool_entry *pool_enter(u64 pool)
{
	struct zs_pool_entry *entry = pools_lookup(pool);

	if (entry && entry->serial)
		return entry;
	/* Not met yet, or met when there was no place for it. */
	if (entry)
		pools_delete(pool);
	pool_register(pool, 1);
	return pool_find(pool);
}

static __always_inline void pool_count(struct zs_pool_entry *entry, u32 what, u64 amount)
{
	struct zs_pool_counters *counters = pool_counters_lookup(entry->slot);

	if (counters && what < ZS_POOL_WORDS)
		__sync_fetch_and_add(&counters->word[what], amount);
}

/* ---- zspages -------------------------------------------------------------- */

static __always_inline u64 class_geometry(u64 size_class)
{
	u64 size = ZS_READ(size_class_size, size_class);
	u64 objs = ZS_READ(size_class_objs_per_zspage, size_class);
	u64 pages = ZS_READ(size_class_pages_per_zspage, size_class);

	return (size & 0xffffffff) | (objs & 0xffff) << 32 | pages << 48;
}

static __always_inline struct zs_class_counters *class_find(struct zs_pool_entry *entry, u32 index)
{
	if (index >= ZS_CLASSES)
		return 0;
	return class_counters_lookup((entry->slot & (ZS_POOLS_MAX - 1)) * ZS_CLASSES + index);
}

static __always_inline void class_learn(struct zs_pool_entry *entry, u32 index, u64 size_class)
{
	struct zs_class_counters *counters = class_find(entry, index);

	if (counters)
		counters->word[ZS_CLASS_GEOMETRY] = class_geometry(size_class);
}

/* Preemption is off at every caller: a plain addition is enough. */
static __always_inline u64 class_count(struct zs_pool_entry *entry, u64 pool, u32 index, u32 what)
{
	struct zs_class_counters *counters = class_find(entry, index);

	if (!counters || what >= ZS_CLASS_WORDS)
		return 0;
	counters->word[what]++;
	if (!counters->word[ZS_CLASS_GEOMETRY])
		counters->word[ZS_CLASS_GEOMETRY] = class_geometry(pool_class(pool, index));
	return counters->word[ZS_CLASS_GEOMETRY];
}

static __always_inline void state_record(struct zspage_copy *copy, u64 zspage, u32 class_index,
					 u64 head, u64 time_ns)
{
	struct zs_record *record = record_begin(head, time_ns, zspage);

	if (!record)
		return;
	record->word[3] = ZS_GET(copy, zspage_inuse) | (u64)ZS_GET(copy, zspage_freeobj) << 32;
	record->word[4] = class_index;
	record->word[5] = 0;
	record->word[6] = 0;
	record_end(record);
}

static __always_inline void state_observed(struct zspage_copy *copy, u64 zspage, u32 serial)
{
	u64 head = record_head(ZS_KIND_STATE, ZS_GET_BITS(copy, zspage_huge) ? ZS_FLAG_HUGE : 0,
			       ZS_GET_BITS(copy, zspage_fullness), 0, serial);

	state_record(copy, zspage, ZS_GET_BITS(copy, zspage_class), head, bpf_ktime_get_ns());
}

/* The chain from its first descriptor on, four frames a record, one time for all. */
static __always_inline void frames_observed(struct zspage_copy *copy, u64 zspage, u32 pages,
					    u32 serial, u64 time_ns)
{
	u64 zpdesc = ZS_GET(copy, zspage_first);
	u32 first, at;

	if (!ZS_VMEMMAP_BASE)
		return;
#pragma unroll
	for (first = 0; first < ZS_CHAIN_MAX; first += ZS_FRAMES_PER_RECORD) {
		u64 frame[ZS_FRAMES_PER_RECORD] = {};
		struct zs_record *record;

		if (first >= pages)
			return;
#pragma unroll
		for (at = 0; at < ZS_FRAMES_PER_RECORD; at++) {
			if (first + at >= pages)
				break;
			frame[at] = frame_of(zpdesc);
			/* A huge zspage keeps its handle where the next pointer would be. */
			if (first + at + 1 < pages)
				zpdesc = ZS_READ(zpdesc_next, zpdesc);
		}
		record = record_begin(record_head(ZS_KIND_FRAMES, 0, first, pages, serial), time_ns,
				      zspage);
		if (!record)
			continue;
		record->word[3] = frame[0];
		record->word[4] = frame[1];
		record->word[5] = frame[2];
		record->word[6] = frame[3];
		record_end(record);
	}
}

/*
 * The group that get_fullness_group() gives a zspage with its first object.
 * insert_zspage() is about to store it; where that cannot be hooked, nothing
 * follows under the lock that can.
 */
static __always_inline u32 newborn_fullness(u64 objs_per_zspage)
{
	if (objs_per_zspage == 1)
		return ZS_FULLNESS_GROUPS - 1;
	return objs_per_zspage ? 100 / (u32)objs_per_zspage / 10 + 1 : 1;
}

static __always_inline void birth_observed(struct zspage_copy *copy, u64 zspage, u32 class_index,
					   u32 fullness, u32 pages, u32 serial)
{
	u64 time_ns = bpf_ktime_get_ns();
	u32 flags = ZS_FLAG_NEWBORN;

	if (ZS_GET_BITS(copy, zspage_huge))
		flags |= ZS_FLAG_HUGE;
	state_record(copy, zspage, class_index,
		     record_head(ZS_KIND_STATE, flags, fullness, pages, serial), time_ns);
	frames_observed(copy, zspage, pages, serial, time_ns);
}

/* ---- compaction ------------------------------------------------------------- */

/*
 * What a run does with one size class is summed up in the pool's entry and told when the run
 * leaves the class. Who moves and frees holds the class lock, and a pool has one run at a time:
 * plain additions do. Where the end of a class is not seen, what it did is told with the next
 * one, or with the end of the run, without a beginning: how long it took is not known.
 */
static __always_inline void class_left(u64 pool, struct zs_pool_entry *entry)
{
	if (entry->class_moves || entry->class_pages) {
		entry->run_classes++;
		record_all_words(
			record_head(ZS_KIND_COMPACT_CLASS, 0, entry->run_trigger, 0, entry->serial),
			pool, entry->class_index,
			(entry->class_moves & 0xffffffff) | entry->class_pages << 32,
			entry->class_begin_ns, entry->run_begin_ns);
	}
	entry->class_moves = 0;
	entry->class_pages = 0;
	entry->class_begin_ns = 0;
}

static __always_inline void class_reached(u64 pool, struct zs_pool_entry *entry, u64 index)
{
	if (entry->class_index == index)
		return;
	entry->class_begin_ns = 0;
	class_left(pool, entry);
	entry->class_index = index;
}

static __always_inline void object_was_moved(u64 pool, struct zs_pool_entry *entry, u64 index)
{
	class_reached(pool, entry, index);
	entry->class_moves++;
	entry->run_moves++;
}

static __always_inline void pages_were_freed(struct zs_pool_entry *entry, u64 pages)
{
	entry->run_pages += pages;
	pool_count(entry, ZS_POOL_PAGES_FREED, pages);
}

static __always_inline void class_pages_were_freed(u64 pool, struct zs_pool_entry *entry,
						   u64 size_class)
{
	u64 pages = ZS_READ(size_class_pages_per_zspage, size_class);

	class_reached(pool, entry, ZS_READ(size_class_index, size_class));
	entry->class_pages += pages;
	pages_were_freed(entry, pages);
}

static __always_inline void compaction_begun(u64 pool, struct zs_pool_entry *entry)
{
	u64 task = bpf_get_current_task();

	entry->class_begin_ns = 0;
	class_left(pool, entry);
	entry->run_begin_ns = bpf_ktime_get_ns();
	entry->run_trigger = shrinking_lookup(task) ? ZS_TRIGGER_SHRINKER : ZS_TRIGGER_CALL;
	entry->run_moves = 0;
	entry->run_pages = 0;
	entry->run_classes = 0;
	pool_count(entry, ZS_POOL_COMPACTIONS, 1);
	record_all_words(
		record_head(ZS_KIND_COMPACT_BEGIN, 0, entry->run_trigger, 0, entry->serial), pool,
		0, 0, entry->run_begin_ns, 0);
}

static __always_inline void compaction_ended(u64 pool, struct zs_pool_entry *entry)
{
	class_left(pool, entry);
	record_all_words(record_head(ZS_KIND_COMPACT_END, 0, entry->run_trigger, 0, entry->serial),
			 pool, entry->run_moves, entry->run_pages, entry->run_begin_ns,
			 entry->run_classes);
}

/* ---- hooks ---------------------------------------------------------------- */

/* In an address of last_malloc, whose lowest bits are 0: a birth, not yet told. */
#define ZS_NEWBORN_MARK 1

/*
 * obj_malloc(pool, zspage, handle): an allocation or, when the zspage is off
 * its list and not empty, a compaction that moves an object into it. The first
 * object of a zspage that was on no list is its birth, which is told here only
 * if the class stands in the zspage already: in 6.1 insert_zspage comes first.
 */
static __always_inline void obj_malloc_done(u64 pool, u64 zspage, u64 handle, u64 result)
{
	struct zs_pool_entry *entry = pool_enter(pool);
	struct zspage_copy copy = {};
	u64 *last_malloc = last_malloc_lookup();
	u32 off_list, class_index;
	u64 geometry;

	if (!entry || !last_malloc || zspage_read(&copy, zspage))
		return;
	off_list = zspage_off_list(&copy, zspage);
	if (off_list && ZS_GET(&copy, zspage_inuse) > 1) {
		class_index = ZS_GET_BITS(&copy, zspage_class);
		class_count(entry, pool, class_index, ZS_CLASS_MOVES);
		object_was_moved(pool, entry, class_index);
		return;
	}
	if (off_list && ZS_BIRTHS_ON_INSERT) {
		*last_malloc = zspage | ZS_NEWBORN_MARK;
		return;
	}
	class_index = ZS_GET_BITS(&copy, zspage_class);
	geometry = class_count(entry, pool, class_index, ZS_CLASS_ALLOCS);
	if (off_list)
		birth_observed(&copy, zspage, class_index,
			       newborn_fullness(geometry >> 32 & 0xffff), geometry >> 48,
			       entry->serial);
	else
		*last_malloc = zspage;
}
ON_RETURN(obj_malloc, obj_malloc_done)

/*
 * fix_fullness_group(class, zspage): the end of every allocation into a zspage
 * that existed, and of every free. Which of the two is known by the obj_malloc
 * that went before it on this CPU under the same lock.
 */
static __always_inline void fix_fullness_group_done(u64 size_class, u64 zspage, u64 unused,
						    u64 result)
{
	u64 *last_malloc = last_malloc_lookup();
	struct zspage_copy copy = {};
	struct zs_pool_entry *entry;
	u64 pool;

	if (!last_malloc || zspage_read(&copy, zspage))
		return;
	pool = ZS_GET(&copy, zspage_pool);
	entry = pool_enter(pool);
	if (!entry)
		return;
	if (*last_malloc == zspage)
		*last_malloc = 0;
	else
		class_count(entry, pool, ZS_GET_BITS(&copy, zspage_class), ZS_CLASS_FREES);
	state_observed(&copy, zspage, entry->serial);
}
ON_RETURN(fix_fullness_group, fix_fullness_group_done)

/*
 * putback_zspage(class, zspage): compaction is done with a source or a destination. Of a source
 * that is left without objects the kernel counts the pages as freed here and now, though it may
 * free them only when they are no longer locked. A class lock is held: no run of this is skipped,
 * as runs of the hooks of __zs_compact() may be.
 */
static __always_inline void putback_zspage_done(u64 size_class, u64 zspage, u64 unused, u64 result)
{
	struct zspage_copy copy = {};
	struct zs_pool_entry *entry;
	u64 pool;

	if (zspage_read(&copy, zspage))
		return;
	pool = ZS_GET(&copy, zspage_pool);
	entry = pool_enter(pool);
	if (!entry)
		return;
	state_observed(&copy, zspage, entry->serial);
	if (!ZS_GET(&copy, zspage_inuse))
		class_pages_were_freed(pool, entry, size_class);
}
ON_RETURN(putback_zspage, putback_zspage_done)

/*
 * insert_zspage(class, zspage, fullness), where putback_zspage is inlined: it
 * ends a compaction's work on a zspage, and a birth. Objects are as they will
 * be; class and group are about to be stored. fix_fullness_group calls it too
 * and has a hook of its own: to be told twice does no harm.
 */
static __always_inline void insert_zspage_begun(u64 size_class, u64 zspage, u64 fullness)
{
	u64 *last_malloc = last_malloc_lookup();
	struct zspage_copy copy = {};
	struct zs_pool_entry *entry;
	u32 class_index, flags;
	u64 pool, geometry;

	if (!last_malloc || zspage_read(&copy, zspage))
		return;
	pool = ZS_GET(&copy, zspage_pool);
	entry = pool_enter(pool);
	if (!entry)
		return;
	class_index = ZS_READ(size_class_index, size_class);
	if (*last_malloc == (zspage | ZS_NEWBORN_MARK)) {
		*last_malloc = 0;
		geometry = class_count(entry, pool, class_index, ZS_CLASS_ALLOCS);
		birth_observed(&copy, zspage, class_index, fullness & 0xff, geometry >> 48,
			       entry->serial);
		return;
	}
	flags = ZS_GET_BITS(&copy, zspage_huge) ? ZS_FLAG_HUGE : 0;
	state_record(&copy, zspage, class_index,
		     record_head(ZS_KIND_STATE, flags, fullness & 0xff, 0, entry->serial),
		     bpf_ktime_get_ns());
	/* A source of compaction, as in putback_zspage(); others empty zspages by frees. */
	if (!ZS_GET(&copy, zspage_inuse) && entry->run_task == bpf_get_current_task())
		class_pages_were_freed(pool, entry, size_class);
}
ON_ENTRY(insert_zspage, insert_zspage_begun)

static __always_inline void death_observed(u64 zspage)
{
	struct zspage_copy copy = {};
	struct zs_pool_entry *entry;

	if (zspage_read(&copy, zspage))
		return;
	entry = pool_find(ZS_GET(&copy, zspage_pool));
	if (entry)
		record_words(record_head(ZS_KIND_DEATH, 0, 0, 0, entry->serial), zspage, 0,
			     ZS_GET_BITS(&copy, zspage_class), 0);
}

/* trylock_zspage(zspage) == 1: all pages are locked; both callers now free it. */
static __always_inline void trylock_zspage_done(u64 zspage, u64 unused, u64 unused_too, u64 result)
{
	if ((u32)result == 1)
		death_observed(zspage);
}
ON_RETURN(trylock_zspage, trylock_zspage_done)

/* __free_zspage(pool, class, zspage): every death, where it is not inlined. */
static __always_inline void free_zspage_begun(u64 pool, u64 size_class, u64 zspage)
{
	death_observed(zspage);
}
ON_ENTRY(__free_zspage, free_zspage_begun)

/*
 * async_free_zspage(work) frees every zspage that stood in group 0 when it
 * looked, waiting for page locks: the deaths that trylock_zspage() refused.
 * The work item of a pool never runs twice at one time.
 */
static __always_inline void async_free_begun(u64 work, u64 unused, u64 unused_too)
{
	struct zs_pool_entry *entry = pool_find(work - ZS_OFFSET(zs_pool_free_work));

	if (entry)
		entry->deferred_begin_ns = bpf_ktime_get_ns();
}
ON_ENTRY(async_free_zspage, async_free_begun)

static __always_inline void async_free_done(u64 work, u64 unused, u64 unused_too, u64 result)
{
	u64 pool = work - ZS_OFFSET(zs_pool_free_work);
	struct zs_pool_entry *entry = pool_find(pool);

	if (entry && entry->deferred_begin_ns)
		record_words(record_head(ZS_KIND_DEFERRED_FREE, 0, 0, 0, entry->serial), pool,
			     entry->deferred_begin_ns, 0, 0);
}
ON_RETURN(async_free_zspage, async_free_done)

/*
 * zs_page_migrate(new, old, mode): on success the new page belongs to the
 * zspage and is still locked by the caller, so the zspage cannot die before
 * this reads it; on failure the same holds for the old page. Success without a
 * zspage means that the zspage had died before: nothing moved.
 *
 * The class lock is free again, so another page of the chain may be replaced
 * while this walks it. The time is taken before the walk: whoever changed the
 * chain last tells all of it, with a later time, and the newest chain counts.
 */
static __always_inline void zs_page_migrate_done(u64 new_page, u64 old_page, u64 mode, u64 result)
{
	s64 error = (s32)result;
	u64 time_ns = bpf_ktime_get_ns();
	u64 zspage = ZS_READ(zpdesc_zspage, error ? old_page : new_page);
	struct zspage_copy copy = {};
	struct zs_pool_entry *entry;
	u64 pool, size_class;

	if (!zspage || zspage_read(&copy, zspage))
		return;
	pool = ZS_GET(&copy, zspage_pool);
	entry = pool_find(pool);
	if (!entry)
		return;
	pool_count(entry, error ? ZS_POOL_MIGRATION_FAILURES : ZS_POOL_MIGRATIONS, 1);
	record_words(record_head(ZS_KIND_MIGRATION, 0, 0, 0, entry->serial), zspage,
		     frame_of(old_page), frame_of(new_page), error);
	if (error)
		return;
	size_class = pool_class(pool, ZS_GET_BITS(&copy, zspage_class));
	frames_observed(&copy, zspage, ZS_READ(size_class_pages_per_zspage, size_class),
			entry->serial, time_ns);
}
ON_RETURN(zs_page_migrate, zs_page_migrate_done)

/*
 * __zs_compact(pool, class), once a class from the largest down, from the
 * sysfs file and from the shrinker alike: zs_compact() itself is inlined into
 * the shrinker. A pool has one run at a time (compaction_in_progress). The
 * kernel may skip some of these programs' runs; a run of compaction is seen
 * all the same by the next class of it that is not smaller than the last seen.
 */
static __always_inline void zs_compact_class_begun(u64 pool, u64 size_class, u64 unused)
{
	struct zs_pool_entry *entry = pool_find(pool);
	u64 class_index = ZS_READ(size_class_index, size_class);

	if (!entry)
		return;
	entry->class_begin_ns = 0;
	class_left(pool, entry);
	if (class_index >= entry->run_class)
		compaction_begun(pool, entry);
	entry->run_class = class_index;
	entry->class_index = class_index;
	entry->class_begin_ns = bpf_ktime_get_ns();
}
ON_ENTRY(__zs_compact, zs_compact_class_begun)

static __always_inline void zs_compact_class_done(u64 pool, u64 size_class, u64 unused,
						  u64 pages_freed)
{
	struct zs_pool_entry *entry = pool_find(pool);

	if (!entry)
		return;
	class_left(pool, entry);
	if (size_class == pool_class(pool, 0))
		compaction_ended(pool, entry);
}
ON_RETURN(__zs_compact, zs_compact_class_done)

/*
 * zs_compact(pool), where it is one function for all triggers. While a run is
 * under way in a pool, other tasks' calls return 0 at once. A return that freed
 * pages makes good what a skipped run of the program at its call hides.
 */
static __always_inline void zs_compact_begun(u64 pool, u64 unused, u64 unused_too)
{
	struct zs_pool_entry *entry = pool_find(pool);

	if (!entry || (u32)ZS_READ(zs_pool_compacting, pool))
		return;
	compaction_begun(pool, entry);
	entry->run_task = bpf_get_current_task();
	/* None: nothing is known of a class before its first object moves. */
	entry->class_index = ZS_CLASSES;
}
ON_ENTRY(zs_compact, zs_compact_begun)

static __always_inline void zs_compact_done(u64 pool, u64 unused, u64 unused_too, u64 pages_freed)
{
	struct zs_pool_entry *entry = pool_find(pool);

	if (!entry)
		return;
	if (entry->run_task != bpf_get_current_task()) {
		if (!pages_freed)
			return;
		compaction_begun(pool, entry);
	}
	entry->run_task = 0;
	/* Where insert_zspage() stands for putback_zspage() only this task's are known. */
	if (ZS_BIRTHS_ON_INSERT && pages_freed > entry->run_pages)
		pages_were_freed(entry, pages_freed - entry->run_pages);
	compaction_ended(pool, entry);
}
ON_RETURN(zs_compact, zs_compact_done)

/*
 * zs_shrinker_scan(shrinker, control): the runs of compaction that begin in it, in the same task,
 * are its own. Of two callers that zs_compact() and its parts have in the kernel it is one; the
 * other is the file by which the owner of a zram device asks for it.
 */
static __always_inline void zs_shrinker_scan_begun(u64 shrinker, u64 unused, u64 unused_too)
{
	shrinking_store(bpf_get_current_task());
}
ON_ENTRY(zs_shrinker_scan, zs_shrinker_scan_begun)

static __always_inline void zs_shrinker_scan_done(u64 shrinker, u64 unused, u64 unused_too,
						  u64 freed)
{
	shrinking_delete(bpf_get_current_task());
}
ON_RETURN(zs_shrinker_scan, zs_shrinker_scan_done)

/* zs_malloc(pool, size, ...): only failures; obj_malloc() tells the rest. */
static __always_inline void zs_malloc_done(u64 pool, u64 size, u64 gfp, u64 result)
{
	struct zs_pool_entry *entry;

	if (result < (u64)-4095)
		return;
	entry = pool_enter(pool);
	if (!entry)
		return;
	pool_count(entry, ZS_POOL_FAILURES, 1);
	record_words(record_head(ZS_KIND_ALLOC_FAILURE, 0, 0, 0, entry->serial), pool, size, result,
		     0);
}
ON_RETURN(zs_malloc, zs_malloc_done)

static __always_inline void pool_gone(u64 pool, struct zs_pool_entry *entry)
{
	if (entry->serial)
		record_words(record_head(ZS_KIND_POOL_DESTROYED, 0, entry->slot, 0, entry->serial),
			     pool, 0, 0, 0);
	pools_delete(pool);
}

/*
 * zs_create_pool(name): its owner does not have the pool yet, so all that is
 * done with it is seen. (The shrinker may have met it: it is empty all the same.)
 */
static __always_inline void zs_create_pool_done(u64 name, u64 unused, u64 unused_too, u64 pool)
{
	struct zs_pool_entry *entry;
	u32 index;

	if (!pool)
		return;
	entry = pools_lookup(pool);
	if (entry)
		pool_gone(pool, entry);
	pool_register(pool, 0);
	entry = pool_find(pool);
	if (!entry)
		return;
	for (index = 0; index < ZS_CLASSES; index++) {
		u64 size_class = pool_class(pool, index);

		/* Slots that share a class point to the largest of them. */
		if (ZS_READ(size_class_index, size_class) == index)
			class_learn(entry, index, size_class);
	}
}
ON_RETURN(zs_create_pool, zs_create_pool_done)

/*
 * zs_destroy_pool(pool), at entry: at its return the address may already be
 * another pool's. Its owner has freed all objects by now; what the deferred
 * worker still frees belongs to a pool that is gone.
 */
static __always_inline void zs_destroy_pool_begun(u64 pool, u64 unused, u64 unused_too)
{
	struct zs_pool_entry *entry = pools_lookup(pool);

	if (entry)
		pool_gone(pool, entry);
}
ON_ENTRY(zs_destroy_pool, zs_destroy_pool_begun)
