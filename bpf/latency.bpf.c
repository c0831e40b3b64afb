/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * How long zsmalloc's calls take, gathered in the kernel by pool, size class and kind
 * (zs_wire.h). An add-on: it shares the probes' table of pools, and only prebuilt objects
 * have it.
 *
 * A call is known by its task and function. One that runs inside another of the same function on
 * the same task takes its place: the inner one is measured, the outer one is counted as unpaired.
 */
#include "dialect_core.h"
#include "zs_probe.h"

/* How sizes become slots of size classes; twin: zpobs/sources/latency.py. */
struct zs_class_setup {
	u64 smallest_bytes;
	u64 step_bytes;
	u64 handle_bytes;
};
const volatile struct zs_class_setup zs_class_setup SEC(".rodata.classes");

enum { CALL_MALLOC, CALL_FREE, CALL_MIGRATE };

struct zs_timed_call {
	u64 begin_ns;
	/* 0 until the class lock is held. */
	u64 locked_ns;
	u32 class_index;
	u32 grew;
};

/* By task, and the function in the lowest bits of its address. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, u64);
	__type(value, struct zs_timed_call);
} zs_timed_calls SEC(".maps");

/* Made as they are met: an idle class takes no room. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, ZS_LATENCY_CELLS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u64);
	__type(value, struct zs_latency);
} zs_latencies SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct zs_latency_losses);
} zs_latency_loss SEC(".maps");

static __always_inline void latency_lost(u32 what)
{
	u32 at = 0;
	struct zs_latency_losses *losses = bpf_map_lookup_elem(&zs_latency_loss, &at);

	if (losses)
		__sync_fetch_and_add(&losses->word[what & 1], 1);
}

/* The number of bits of a duration: the bucket that it belongs to. */
static __always_inline u32 bucket_of(u64 took_ns)
{
	u32 bits = 0;

	if (took_ns >> 32) {
		bits += 32;
		took_ns >>= 32;
	}
	if (took_ns >> 16) {
		bits += 16;
		took_ns >>= 16;
	}
	if (took_ns >> 8) {
		bits += 8;
		took_ns >>= 8;
	}
	if (took_ns >> 4) {
		bits += 4;
		took_ns >>= 4;
	}
	if (took_ns >> 2) {
		bits += 2;
		took_ns >>= 2;
	}
	bits += took_ns >> 1 ? 2 : took_ns;
	return bits < ZS_LATENCY_BUCKETS ? bits : ZS_LATENCY_BUCKETS - 1;
}

/* A task may be preempted here, and another count on the same CPU: additions are atomic. */
static __always_inline void latency_count(u32 serial, u32 class_index, u32 kind, u64 begin_ns,
					  u64 end_ns)
{
	u64 key = kind | (u64)class_index << 16 | (u64)serial << 32;
	struct zs_latency *cell = bpf_map_lookup_elem(&zs_latencies, &key);
	u64 took_ns = end_ns > begin_ns ? end_ns - begin_ns : 0;
	u32 bucket = bucket_of(took_ns);

	if (!cell) {
		struct zs_latency none = {};

		bpf_map_update_elem(&zs_latencies, &key, &none, BPF_NOEXIST);
		cell = bpf_map_lookup_elem(&zs_latencies, &key);
	}
	if (!cell) {
		latency_lost(ZS_LATENCY_NO_CELL);
		return;
	}
	if (bucket >= ZS_LATENCY_BUCKETS)
		return;
	__sync_fetch_and_add(&cell->count, 1);
	__sync_fetch_and_add(&cell->sum_ns, took_ns);
	__sync_fetch_and_add(&cell->bucket[bucket], 1);
}

static __always_inline u64 call_key(u32 function)
{
	return bpf_get_current_task() | function;
}

static __always_inline void timed_begin(u32 function)
{
	struct zs_timed_call call = {.class_index = ZS_LATENCY_NO_CLASS};
	u64 key = call_key(function);

	if (bpf_map_lookup_elem(&zs_timed_calls, &key))
		latency_lost(ZS_LATENCY_UNPAIRED);
	call.begin_ns = bpf_ktime_get_ns();
	if (bpf_map_update_elem(&zs_timed_calls, &key, &call, BPF_ANY))
		latency_lost(ZS_LATENCY_UNPAIRED);
}

static __always_inline int timed_end(u32 function, struct zs_timed_call *call)
{
	u64 key = call_key(function);
	struct zs_timed_call *found = bpf_map_lookup_elem(&zs_timed_calls, &key);

	if (!found) {
		latency_lost(ZS_LATENCY_UNPAIRED);
		return 0;
	}
	*call = *found;
	bpf_map_delete_elem(&zs_timed_calls, &key);
	return 1;
}

/* The class of the slot that holds objects of a size: get_size_class_index(). */
static __always_inline u32 class_of_bytes(u64 pool, u64 bytes)
{
	u64 above =
		bytes > zs_class_setup.smallest_bytes ? bytes - zs_class_setup.smallest_bytes : 0;
	u64 slot = (above + zs_class_setup.step_bytes - 1) / zs_class_setup.step_bytes;

	if (slot >= ZS_CLASSES)
		slot = ZS_CLASSES - 1;
	return ZS_READ(size_class_index, pool_class(pool, slot));
}

static __always_inline void zs_malloc_timed(u64 pool, u64 bytes, u64 unused)
{
	timed_begin(CALL_MALLOC);
}
ON_ENTRY(zs_malloc, zs_malloc_timed)

/*
 * obj_malloc(pool, zspage, handle), called with the class lock held; by compaction as well, which
 * may run inside zs_malloc() on the same task: its zspage is on no list and not empty.
 */
static __always_inline void obj_malloc_timed(u64 pool, u64 zspage, u64 handle)
{
	u64 key = call_key(CALL_MALLOC);
	struct zs_timed_call *call = bpf_map_lookup_elem(&zs_timed_calls, &key);
	struct zspage_copy copy = {};
	u32 off_list;

	if (!call || call->locked_ns || zspage_read(&copy, zspage))
		return;
	off_list = zspage_off_list(&copy, zspage);
	if (off_list && ZS_GET(&copy, zspage_inuse))
		return;
	call->grew = off_list;
	call->locked_ns = bpf_ktime_get_ns();
}
ON_ENTRY(obj_malloc, obj_malloc_timed)

static __always_inline void zs_malloc_measured(u64 pool, u64 bytes, u64 unused, u64 result)
{
	u64 end_ns = bpf_ktime_get_ns();
	struct zs_timed_call call = {};
	struct zs_pool_entry *entry;
	u32 class_index = ZS_LATENCY_NO_CLASS;

	if (!timed_end(CALL_MALLOC, &call))
		return;
	entry = pool_find(pool);
	if (!entry)
		return;
	if (bytes &&
	    bytes <= zs_class_setup.smallest_bytes + zs_class_setup.step_bytes * (ZS_CLASSES - 1))
		class_index = class_of_bytes(pool, bytes + zs_class_setup.handle_bytes);
	if (result >= (u64)-4095) {
		latency_count(entry->serial, class_index, ZS_LATENCY_ALLOC_FAILED, call.begin_ns,
			      end_ns);
		return;
	}
	latency_count(entry->serial, class_index, ZS_LATENCY_ALLOC, call.begin_ns, end_ns);
	if (call.locked_ns)
		latency_count(entry->serial, class_index,
			      call.grew ? ZS_LATENCY_ALLOC_GROW : ZS_LATENCY_ALLOC_LOCK,
			      call.begin_ns, call.locked_ns);
}
ON_RETURN(zs_malloc, zs_malloc_measured)

static __always_inline void zs_free_timed(u64 pool, u64 handle, u64 unused)
{
	timed_begin(CALL_FREE);
}
ON_ENTRY(zs_free, zs_free_timed)

/* obj_free(class size, object), called with the class lock held; compaction's belong to no call. */
static __always_inline void obj_free_timed(u64 bytes, u64 object, u64 unused)
{
	u64 key = call_key(CALL_FREE);
	struct zs_timed_call *call = bpf_map_lookup_elem(&zs_timed_calls, &key);

	if (!call || call->locked_ns)
		return;
	call->class_index =
		((u32)bytes - zs_class_setup.smallest_bytes) / zs_class_setup.step_bytes;
	call->locked_ns = bpf_ktime_get_ns();
}
ON_ENTRY(obj_free, obj_free_timed)

/* A handle that is none frees nothing and takes no lock. */
static __always_inline void zs_free_measured(u64 pool, u64 handle, u64 unused, u64 result)
{
	u64 end_ns = bpf_ktime_get_ns();
	struct zs_timed_call call = {};
	struct zs_pool_entry *entry;

	if (!timed_end(CALL_FREE, &call) || !call.locked_ns)
		return;
	entry = pool_find(pool);
	if (!entry)
		return;
	latency_count(entry->serial, call.class_index, ZS_LATENCY_FREE, call.begin_ns, end_ns);
	latency_count(entry->serial, call.class_index, ZS_LATENCY_FREE_LOCK, call.begin_ns,
		      call.locked_ns);
}
ON_RETURN(zs_free, zs_free_measured)

static __always_inline void zs_page_migrate_timed(u64 new_page, u64 old_page, u64 mode)
{
	timed_begin(CALL_MIGRATE);
}
ON_ENTRY(zs_page_migrate, zs_page_migrate_timed)

/* Which zspage it was: as in probes.bpf.c. */
static __always_inline void zs_page_migrate_measured(u64 new_page, u64 old_page, u64 mode,
						     u64 result)
{
	u64 end_ns = bpf_ktime_get_ns();
	s64 error = (s32)result;
	u64 zspage = ZS_READ(zpdesc_zspage, error ? old_page : new_page);
	struct zs_timed_call call = {};
	struct zspage_copy copy = {};
	struct zs_pool_entry *entry;

	if (!timed_end(CALL_MIGRATE, &call) || !zspage || zspage_read(&copy, zspage))
		return;
	entry = pool_find(ZS_GET(&copy, zspage_pool));
	if (!entry)
		return;
	latency_count(entry->serial, ZS_GET_BITS(&copy, zspage_class),
		      error ? ZS_LATENCY_MIGRATION_FAILED : ZS_LATENCY_MIGRATION, call.begin_ns,
		      end_ns);
}
ON_RETURN(zs_page_migrate, zs_page_migrate_measured)
