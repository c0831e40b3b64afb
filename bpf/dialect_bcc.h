/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The probes' words for bcc. The loader puts zs_wire.h, this file and
 * probes.bpf.c into one text, because bcc rewrites map methods and finds
 * programs in the main file only, and passes as -D constants:
 *
 *   ZS_OFF_x, ZS_TYPE_x              place and unsigned type of a ZS_FIELD
 *   ZS_OFF_x, ZS_SHIFT_x, ZS_MASK_x  32-bit word and bits of a ZS_BITS
 *   ZS_SIZEOF_zspage, ZS_SIZEOF_page, ZS_CLASSES, ZS_FULLNESS_GROUPS
 *   ZS_RING_PAGES, ZS_RING_BYTES     the size of zs_events, twice
 *   ZS_VMEMMAP_BASE                  address of the descriptor of frame 0, 0 if unknown
 *   ZS_BIRTHS_ON_INSERT              whether births are told by insert_zspage, 0 or 1
 *   ZS_OBJECT                        vmlinux, or zsmalloc where that is a module
 *   ZS_FORM_f                        FENTRY, KPROBE or ABSENT, for each function f of all hooks
 *
 * Kernel pointers are u64 here: bcc rewrites every dereference of a pointer
 * that it believes to point into the kernel.
 */
#define ZS_DIALECT bcc

#include <uapi/linux/ptrace.h>

#define ZS_GET(copy, name) (*(ZS_TYPE_##name *)((char *)(copy) + ZS_OFF_##name))
#define ZS_GET_BITS(copy, name)                                                                    \
	((*(u32 *)((char *)(copy) + ZS_OFF_##name) >> ZS_SHIFT_##name) & ZS_MASK_##name)
#define ZS_OFFSET(name) ((u64)ZS_OFF_##name)

#define ZS_READ(name, base)                                                                        \
	({                                                                                         \
		ZS_TYPE_##name value_ = 0;                                                         \
		bpf_probe_read_kernel(&value_, sizeof(value_), (void *)((base) + ZS_OFF_##name));  \
		(u64) value_;                                                                      \
	})

struct zs_arguments {
	u64 word[4];
};

BPF_RINGBUF_OUTPUT(zs_events, ZS_RING_PAGES);
BPF_HASH(zs_pools, u64, struct zs_pool_entry, 2 * ZS_POOLS_MAX);
/* Places for pools, filled by user space: serial << 8 | slot. */
BPF_QUEUE(zs_free_places, u64, ZS_POOLS_MAX);
BPF_PERCPU_ARRAY(zs_class_counters, struct zs_class_counters, ZS_POOLS_MAX *ZS_CLASSES);
BPF_PERCPU_ARRAY(zs_pool_counters, struct zs_pool_counters, ZS_POOLS_MAX);
BPF_PERCPU_ARRAY(zs_loss, struct zs_loss_counters, 1);
/* The zspage whose obj_malloc returned last on this CPU, until its group is fixed. */
BPF_PERCPU_ARRAY(zs_last_malloc, u64, 1);
/* Arguments of calls that have not returned yet, by stack pointer: kprobe form only. */
BPF_HASH(zs_calls, u64, struct zs_arguments, 4096);
/* Tasks inside of zs_shrinker_scan(). */
BPF_TABLE("lru_hash", u64, u64, zs_shrinking, ZS_SHRINKING_MAX);

static __always_inline struct zs_pool_entry *pools_lookup(u64 pool)
{
	return zs_pools.lookup(&pool);
}

static __always_inline int pools_insert(u64 pool, struct zs_pool_entry *entry)
{
	return zs_pools.insert(&pool, entry);
}

static __always_inline void pools_delete(u64 pool)
{
	zs_pools.delete(&pool);
}

static __always_inline int free_places_pop(u64 *place)
{
	/* bcc declares pop() to return a pointer, and makes it a helper's result. */
	return (int)(long)zs_free_places.pop(place);
}

static __always_inline struct zs_class_counters *class_counters_lookup(u32 at)
{
	return zs_class_counters.lookup(&at);
}

static __always_inline struct zs_pool_counters *pool_counters_lookup(u32 at)
{
	return zs_pool_counters.lookup(&at);
}

static __always_inline struct zs_loss_counters *loss_lookup(void)
{
	u32 at = 0;

	return zs_loss.lookup(&at);
}

static __always_inline u64 *last_malloc_lookup(void)
{
	u32 at = 0;

	return zs_last_malloc.lookup(&at);
}

static __always_inline struct zs_arguments *calls_lookup(u64 frame)
{
	return zs_calls.lookup(&frame);
}

static __always_inline void calls_store(u64 frame, struct zs_arguments *arguments)
{
	zs_calls.update(&frame, arguments);
}

static __always_inline void calls_delete(u64 frame)
{
	zs_calls.delete(&frame);
}

static __always_inline u64 *shrinking_lookup(u64 task)
{
	return zs_shrinking.lookup(&task);
}

static __always_inline void shrinking_store(u64 task)
{
	u64 present = 1;

	zs_shrinking.update(&task, &present);
}

static __always_inline void shrinking_delete(u64 task)
{
	zs_shrinking.delete(&task);
}

static __always_inline struct zs_record *ring_reserve(void)
{
	return zs_events.ringbuf_reserve(sizeof(struct zs_record));
}

static __always_inline u64 ring_pending_bytes(void)
{
	return zs_events.ringbuf_query(BPF_RB_AVAIL_DATA);
}

static __always_inline void ring_submit(struct zs_record *record, u64 flags)
{
	zs_events.ringbuf_submit(record, flags);
}

/* ON_ENTRY and ON_RETURN make the programs of a function in the form that ZS_FORM_f names. */
#define ON_ENTRY(function, handler) ZS_ENTRY_IN(ZS_FORM_##function, function, handler)
#define ON_RETURN(function, handler) ZS_RETURN_IN(ZS_FORM_##function, function, handler)
#define ZS_ENTRY_IN(form, function, handler) ZS_ENTRY_PASTED(form, function, handler)
#define ZS_RETURN_IN(form, function, handler) ZS_RETURN_PASTED(form, function, handler)
#define ZS_ENTRY_PASTED(form, function, handler) ZS_ENTRY_##form(function, handler)
#define ZS_RETURN_PASTED(form, function, handler) ZS_RETURN_##form(function, handler)

/*
 * bpf_get_func_arg() hands out plain numbers, where ctx[n] would be a typed
 * pointer that the verifier lets nobody calculate with; it is compiled inline,
 * and an argument that the function does not have reads as zero.
 */
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

/* bcc takes from a program's name which BTF describes the function: vmlinux's or a module's. */
#define ZS_NAME(begin, object, function) ZS_NAME_PASTED(begin, object, function)
#define ZS_NAME_PASTED(begin, object, function) begin##object##__##function

#define ZS_ENTRY_FENTRY(function, handler)                                                         \
	int ZS_NAME(kfunc__, ZS_OBJECT, function)(void *ctx)                                       \
	{                                                                                          \
		handler(call_argument(ctx, 0), call_argument(ctx, 1), call_argument(ctx, 2));      \
		return 0;                                                                          \
	}
#define ZS_RETURN_FENTRY(function, handler)                                                        \
	int ZS_NAME(kretfunc__, ZS_OBJECT, function)(void *ctx)                                    \
	{                                                                                          \
		handler(call_argument(ctx, 0), call_argument(ctx, 1), call_argument(ctx, 2),       \
			call_result(ctx));                                                         \
		return 0;                                                                          \
	}

#define ZS_ENTRY_KPROBE(function, handler)                                                         \
	int entry__##function(struct pt_regs *ctx)                                                 \
	{                                                                                          \
		handler(PT_REGS_PARM1(ctx), PT_REGS_PARM2(ctx), PT_REGS_PARM3(ctx));               \
		return 0;                                                                          \
	}
#define ZS_RETURN_KPROBE(function, handler)                                                        \
	int call__##function(struct pt_regs *ctx)                                                  \
	{                                                                                          \
		call_begin(PT_REGS_SP(ctx), PT_REGS_PARM1(ctx), PT_REGS_PARM2(ctx),                \
			   PT_REGS_PARM3(ctx));                                                    \
		return 0;                                                                          \
	}                                                                                          \
	int return__##function(struct pt_regs *ctx)                                                \
	{                                                                                          \
		struct zs_arguments called;                                                        \
                                                                                                   \
		if (call_end(PT_REGS_SP(ctx) - ZS_RETURN_ADDRESS_BYTES, &called))                  \
			handler(called.word[0], called.word[1], called.word[2], PT_REGS_RC(ctx));  \
		return 0;                                                                          \
	}

/* A function that this kernel does not have, or that is not wanted. */
#define ZS_ENTRY_ABSENT(function, handler)
#define ZS_RETURN_ABSENT(function, handler)

#if defined(__x86_64__) || defined(bpf_target_x86)
#define ZS_CALL_PUSHES_ADDRESS 1
#endif
