/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The probes' words for CO-RE: one object for every kernel. libbpf puts places
 * in kernel structures in when it loads the object (zs_core.h). Every function
 * has its programs in both forms; the loader switches on those that it wants,
 * by the names
 *
 *   fentry__F, fexit__F                  before and after a function F
 *   entry__F, call__F and return__F      the same with kprobe and kretprobe
 *
 * and sets before loading: the sizes of zs_events (bytes) and of
 * zs_class_counters (elements), and the words of zs_setup.
 */
#ifndef ZS_DIALECT
#define ZS_DIALECT core

#include <linux/ptrace.h>

#include "zs_core.h"
#include "zs_wire.h"

#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Constants by the time of loading; twin: zpobs/loaders/core.py. */
struct zs_setup {
	u64 ring_bytes;
	u64 vmemmap_base;
	u64 births_on_insert;
};
const volatile struct zs_setup zs_setup SEC(".rodata.setup");

#define ZS_RING_BYTES (zs_setup.ring_bytes)
#define ZS_VMEMMAP_BASE (zs_setup.vmemmap_base)
#define ZS_BIRTHS_ON_INSERT (zs_setup.births_on_insert)
#define ZS_SIZEOF_zspage                                                                           \
	({                                                                                         \
		u32 bytes_ = bpf_core_type_size(struct zspage___size);                             \
		bytes_ > sizeof(struct zspage_copy) ? sizeof(struct zspage_copy) : bytes_;         \
	})
#define ZS_SIZEOF_page bpf_core_type_size(struct page___size)
#define ZS_CLASSES (zs_bytes_zs_pool_size_class() / sizeof(u64))
#define ZS_FULLNESS_GROUPS (zs_bytes_size_class_lists() / sizeof(u64[2]))

#define ZS_GET(copy, name) zs_get_##name(copy)
#define ZS_GET_BITS(copy, name) zs_get_##name(copy)
#define ZS_OFFSET(name) zs_at_##name()
#define ZS_READ(name, base) zs_read(name, base)

struct zs_arguments {
	u64 word[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 12);
} zs_events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2 * ZS_POOLS_MAX);
	__type(key, u64);
	__type(value, struct zs_pool_entry);
} zs_pools SEC(".maps");

/* Places for pools, filled by user space: serial << 8 | slot. */
struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, ZS_POOLS_MAX);
	__uint(value_size, sizeof(u64));
} zs_free_places SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct zs_class_counters);
} zs_class_counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, ZS_POOLS_MAX);
	__type(key, u32);
	__type(value, struct zs_pool_counters);
} zs_pool_counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct zs_loss_counters);
} zs_loss SEC(".maps");

/* The zspage whose obj_malloc returned last on this CPU, until its group is fixed. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} zs_last_malloc SEC(".maps");

/* Arguments of calls that have not returned yet, by stack pointer: kprobe form only. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, u64);
	__type(value, struct zs_arguments);
} zs_calls SEC(".maps");

/* Tasks inside of zs_shrinker_scan(). */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, ZS_SHRINKING_MAX);
	__type(key, u64);
	__type(value, u64);
} zs_shrinking SEC(".maps");

static __always_inline struct zs_pool_entry *pools_lookup(u64 pool)
{
	return bpf_map_lookup_elem(&zs_pools, &pool);
}

static __always_inline int pools_insert(u64 pool, struct zs_pool_entry *entry)
{
	return bpf_map_update_elem(&zs_pools, &pool, entry, BPF_NOEXIST);
}

static __always_inline void pools_delete(u64 pool)
{
	bpf_map_delete_elem(&zs_pools, &pool);
}

static __always_inline int free_places_pop(u64 *place)
{
	return bpf_map_pop_elem(&zs_free_places, place);
}

static __always_inline struct zs_class_counters *class_counters_lookup(u32 at)
{
	return bpf_map_lookup_elem(&zs_class_counters, &at);
}

static __always_inline struct zs_pool_counters *pool_counters_lookup(u32 at)
{
	return bpf_map_lookup_elem(&zs_pool_counters, &at);
}

static __always_inline struct zs_loss_counters *loss_lookup(void)
{
	u32 at = 0;

	return bpf_map_lookup_elem(&zs_loss, &at);
}

static __always_inline u64 *last_malloc_lookup(void)
{
	u32 at = 0;

	return bpf_map_lookup_elem(&zs_last_malloc, &at);
}

static __always_inline struct zs_arguments *calls_lookup(u64 frame)
{
	return bpf_map_lookup_elem(&zs_calls, &frame);
}

static __always_inline void calls_store(u64 frame, struct zs_arguments *arguments)
{
	bpf_map_update_elem(&zs_calls, &frame, arguments, BPF_ANY);
}

static __always_inline void calls_delete(u64 frame)
{
	bpf_map_delete_elem(&zs_calls, &frame);
}

static __always_inline u64 *shrinking_lookup(u64 task)
{
	return bpf_map_lookup_elem(&zs_shrinking, &task);
}

static __always_inline void shrinking_store(u64 task)
{
	u64 present = 1;

	bpf_map_update_elem(&zs_shrinking, &task, &present, BPF_ANY);
}

static __always_inline void shrinking_delete(u64 task)
{
	bpf_map_delete_elem(&zs_shrinking, &task);
}

static __always_inline struct zs_record *ring_reserve(void)
{
	return bpf_ringbuf_reserve(&zs_events, sizeof(struct zs_record), 0);
}

static __always_inline u64 ring_pending_bytes(void)
{
	return bpf_ringbuf_query(&zs_events, BPF_RB_AVAIL_DATA);
}

static __always_inline void ring_submit(struct zs_record *record, u64 flags)
{
	bpf_ringbuf_submit(record, flags);
}

static __always_inline u64 call_argument(void *ctx, u32 number)
{
	u64 value = 0;

	bpf_get_func_arg(ctx, number, &value);
	return value;
}

static __always_inline u64 call_result(void *ctx)
{
	u64 value = 0;

	bpf_get_func_ret(ctx, &value);
	return value;
}

#define ON_ENTRY(function, handler)                                                                \
	SEC("?fentry/" #function)                                                                  \
	int fentry__##function(void *ctx)                                                          \
	{                                                                                          \
		handler(call_argument(ctx, 0), call_argument(ctx, 1), call_argument(ctx, 2));      \
		return 0;                                                                          \
	}                                                                                          \
	SEC("?kprobe")                                                                             \
	int entry__##function(struct pt_regs *ctx)                                                 \
	{                                                                                          \
		handler(PT_REGS_PARM1(ctx), PT_REGS_PARM2(ctx), PT_REGS_PARM3(ctx));               \
		return 0;                                                                          \
	}

#define ON_RETURN(function, handler)                                                               \
	SEC("?fexit/" #function)                                                                   \
	int fexit__##function(void *ctx)                                                           \
	{                                                                                          \
		handler(call_argument(ctx, 0), call_argument(ctx, 1), call_argument(ctx, 2),       \
			call_result(ctx));                                                         \
		return 0;                                                                          \
	}                                                                                          \
	SEC("?kprobe")                                                                             \
	int call__##function(struct pt_regs *ctx)                                                  \
	{                                                                                          \
		call_begin(PT_REGS_SP(ctx), PT_REGS_PARM1(ctx), PT_REGS_PARM2(ctx),                \
			   PT_REGS_PARM3(ctx));                                                    \
		return 0;                                                                          \
	}                                                                                          \
	SEC("?kretprobe")                                                                          \
	int return__##function(struct pt_regs *ctx)                                                \
	{                                                                                          \
		struct zs_arguments called;                                                        \
                                                                                                   \
		if (call_end(PT_REGS_SP(ctx) - ZS_RETURN_ADDRESS_BYTES, &called))                  \
			handler(called.word[0], called.word[1], called.word[2], PT_REGS_RC(ctx));  \
		return 0;                                                                          \
	}

#ifdef __TARGET_ARCH_x86
#define ZS_CALL_PUSHES_ADDRESS 1
#endif

#endif
