/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Counts how often a trap was met, so that a test that passes has met it, and
 * holds migrations up on demand, so that more is met. It watches the kernel's functions
 * itself and shares nothing with the probes but the places of structure members.
 *
 * A program is named entry_ or return_ and its function; those whose function the kernel
 * lacks are left out.
 */
#include "zs_core.h"

#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Twin: tests/traps/__init__.py. */
enum trap {
	LOCKS_REFUSED,
	DEFERRED_RUNS,
	EMPTY_PICKED,
	DYING_MIGRATED,
	MOVED,
	ADDRESS_REUSED,
	HANDLE_REUSED,
	COMPACTED_IN_MALLOC,
	COMPACTED_BY_SHRINKER,
	COMPACTED_BY_FILE,
	/* No traps: how often a migration was held up, and where to do it. */
	HELD_UP,
	HOLD,
	/* Nor are migrations that failed, the last such result, and allocations that failed. */
	REFUSED,
	REFUSED_RESULT,
	COUNTS,
};

/*
 * Where to hold a migration up: its page is isolated and not locked yet, or locked. Or where to
 * hold a reader of an object, so that its zspage refuses. Several by their sum.
 */
enum hold {
	NOWHERE = 0,
	ISOLATED = 1,
	LOCKED = 2,
	READING = 4,
};

/* For so long at most: whoever waits for it may wait for this CPU. */
#define HOLD_NS 1000000000ULL

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, COUNTS);
	__type(key, u32);
	__type(value, u64);
} met SEC(".maps");

/* What a task is inside of: 1 zs_malloc, 2 zs_shrinker_scan. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, u64);
	__type(value, u64);
} inside SEC(".maps");

/* Addresses at which a zspage has died. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 14);
	__type(key, u64);
	__type(value, u64);
} dead SEC(".maps");

/* Handles that were freed. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 14);
	__type(key, u64);
	__type(value, u64);
} freed SEC(".maps");

/* The zspage in free_zspage() on this CPU, 0 if it was freed. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} freeing SEC(".maps");

static __always_inline void meet(u32 trap)
{
	u64 *count = bpf_map_lookup_elem(&met, &trap);

	if (count)
		__sync_fetch_and_add(count, 1);
}

static __always_inline u64 argument(void *ctx, u32 number)
{
	u64 value = 0;

	bpf_get_func_arg(ctx, number, &value);
	return value;
}

static __always_inline u64 result(void *ctx)
{
	u64 value = 0;

	bpf_get_func_ret(ctx, &value);
	return value;
}

static __always_inline u64 within(void)
{
	u64 task = bpf_get_current_pid_tgid();
	u64 *found = bpf_map_lookup_elem(&inside, &task);

	return found ? *found : 0;
}

static __always_inline void enter(u64 what)
{
	u64 task = bpf_get_current_pid_tgid();
	u64 now = within() | what;

	bpf_map_update_elem(&inside, &task, &now, BPF_ANY);
}

static __always_inline void leave(u64 what)
{
	u64 task = bpf_get_current_pid_tgid();
	u64 now = within() & ~what;

	bpf_map_update_elem(&inside, &task, &now, BPF_ANY);
}

SEC("fentry/zs_malloc")
int entry_zs_malloc(void *ctx)
{
	enter(1);
	return 0;
}

SEC("fexit/zs_malloc")
int return_zs_malloc(void *ctx)
{
	leave(1);
	return 0;
}

SEC("fentry/zs_free")
int entry_zs_free(void *ctx)
{
	u64 handle = argument(ctx, 1), one = 1;

	bpf_map_update_elem(&freed, &handle, &one, BPF_ANY);
	return 0;
}

SEC("fentry/zs_shrinker_scan")
int entry_zs_shrinker_scan(void *ctx)
{
	enter(2);
	return 0;
}

SEC("fexit/zs_shrinker_scan")
int return_zs_shrinker_scan(void *ctx)
{
	leave(2);
	return 0;
}

SEC("fentry/__zs_compact")
int entry___zs_compact(void *ctx)
{
	u64 where = within();

	if (where & 1)
		meet(COMPACTED_IN_MALLOC);
	if (where & 2)
		meet(COMPACTED_BY_SHRINKER);
	return 0;
}

SEC("fentry/zs_compact")
int entry_zs_compact(void *ctx)
{
	meet(COMPACTED_BY_FILE);
	return 0;
}

static __always_inline void die(u64 zspage)
{
	u64 one = 1;

	bpf_map_update_elem(&dead, &zspage, &one, BPF_ANY);
}

SEC("fexit/trylock_zspage")
int return_trylock_zspage(void *ctx)
{
	if ((u32)result(ctx) == 1)
		die(argument(ctx, 0));
	else
		meet(LOCKS_REFUSED);
	return 0;
}

/*
 * Where trylock_zspage() is inlined into free_zspage(): that calls __free_zspage(), or the
 * locks were refused. All of it under the class lock, so on one CPU.
 */
static __always_inline u64 *about_to_free(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&freeing, &zero);
}

SEC("fentry/free_zspage")
int entry_free_zspage(void *ctx)
{
	u64 *zspage = about_to_free();

	if (zspage)
		*zspage = argument(ctx, 2);
	return 0;
}

SEC("fentry/__free_zspage")
int entry___free_zspage(void *ctx)
{
	u64 *zspage = about_to_free();

	die(argument(ctx, 2));
	if (zspage)
		*zspage = 0;
	return 0;
}

SEC("fexit/free_zspage")
int return_free_zspage(void *ctx)
{
	u64 *zspage = about_to_free();

	if (zspage && *zspage)
		meet(LOCKS_REFUSED);
	return 0;
}

SEC("fentry/async_free_zspage")
int entry_async_free_zspage(void *ctx)
{
	meet(DEFERRED_RUNS);
	return 0;
}

SEC("fentry/obj_malloc")
int entry_obj_malloc(void *ctx)
{
	u64 zspage = argument(ctx, 1), handle = argument(ctx, 2);
	u64 node = zspage + zs_at_zspage_list(), next = 0;

	if (bpf_map_delete_elem(&freed, &handle) == 0)
		meet(HANDLE_REUSED);
	if (zs_read(zspage_inuse, zspage))
		return 0;
	bpf_probe_read_kernel(&next, sizeof(next), (void *)node);
	if (next && next != node)
		meet(EMPTY_PICKED);
	else if (bpf_map_delete_elem(&dead, &zspage) == 0)
		meet(ADDRESS_REUSED);
	return 0;
}

static __always_inline u64 where_to_hold(void)
{
	u32 at = HOLD;
	u64 *where = bpf_map_lookup_elem(&met, &at);

	return where ? *(volatile u64 *)where : NOWHERE;
}

struct dawdling {
	u64 where;
	u64 until_ns;
};

static long dawdle(u32 turn, void *context)
{
	struct dawdling *dawdling = context;

	return !(where_to_hold() & dawdling->where) || bpf_ktime_get_ns() >= dawdling->until_ns;
}

static __always_inline void hold(u64 where)
{
	struct dawdling dawdling = {where, bpf_ktime_get_ns() + HOLD_NS};

	if (!(where_to_hold() & where))
		return;
	meet(HELD_UP);
	bpf_loop(1 << 23, dawdle, &dawdling, 0);
}

/* What is to be moved is isolated, by soft_offline_page() too, and locked from here on. */
SEC("fentry/migrate_pages")
int entry_migrate_pages(void *ctx)
{
	hold(ISOLATED);
	return 0;
}

SEC("fentry/zs_page_migrate")
int entry_zs_page_migrate(void *ctx)
{
	if (!zs_read(zpdesc_zspage, argument(ctx, 1)))
		meet(DYING_MIGRATED);
	hold(LOCKED);
	return 0;
}

/*
 * The object is still being read: its zspage has a reader. Whoever was held up until there was one
 * goes on, and meets it.
 */
SEC("fentry/zs_obj_read_end")
int entry_zs_obj_read_end(void *ctx)
{
	u32 at = HOLD;
	u64 *where = bpf_map_lookup_elem(&met, &at);

	if (where && (*where & READING))
		*where &= ~(u64)ISOLATED;
	hold(READING);
	return 0;
}

SEC("fexit/zs_page_migrate")
int return_zs_page_migrate(void *ctx)
{
	s64 error = (s32)result(ctx);
	u32 at = REFUSED_RESULT;
	u64 word = error;

	if (error) {
		meet(REFUSED);
		bpf_map_update_elem(&met, &at, &word, BPF_ANY);
	}
	if ((s32)result(ctx) == 0 && zs_read(zpdesc_zspage, argument(ctx, 0)))
		meet(MOVED);
	return 0;
}
