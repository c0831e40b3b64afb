/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The bytes that cross from the kernel to user space. zpobs/wire.py is the
 * Python twin of this file; tests/test_wire.py compares the two constant by
 * constant.
 *
 * A record is an observation: the absolute state of one thing at one time,
 * never a change. Seven u64 words behind the ring's own 8-byte header make a
 * slot of 64 bytes, so that a mapped ring is a matrix of N x 8 words.
 *
 *   word 0   kind:8 | flags:8 | a:8 | b:8 | pool serial:32   (low bits first)
 *   word 1   time_ns, CLOCK_MONOTONIC
 *   word 2   address of the subject: a zspage or a pool
 *   words 3..6 by kind:
 *
 *   kind            a          b      word 2  word 3             word 4            5, 6
 *   STATE           fullness   pages  zspage  inuse | freeobj<<32  class index
 *   FRAMES          first page pages  zspage  four page frame numbers, words 3..6
 *   DEATH                             zspage                     class index
 *   POOL_CREATED    slot              pool    name, 32 bytes, words 3..6
 *   POOL_DESTROYED  slot              pool
 *   COMPACT_BEGIN   trigger           pool                                          see below
 *   COMPACT_CLASS   trigger           pool    class index        moves | pages<<32 see below
 *   COMPACT_END     trigger           pool    objects moved      pages freed       see below
 *   MIGRATION                         zspage  old frame          new frame         result
 *   ALLOC_FAILURE                     pool    requested bytes    error
 *   DEFERRED_FREE                     pool    begin_ns
 *   OBJECT_STORED                     handle  zspage            class, CPU, node  object value
 *   OBJECT_OWNER                      handle  bytes | took<<32  cgroup            command, 16 bytes
 *   OBJECT_SLOT                       handle  swap entry, block
 *   OBJECT_FREED                      handle                    CPU, node
 *   SCAN_BEGIN                        pool    class index       geometry          capacity, objects
 *   SCAN_END                          pool    class index       begin_ns          capacity, objects
 *   SCANNED                           pool    pages allocated   pages compacted   begin_ns, objects
 *   LINKS                             zspage  magic | lock<<32  first descriptor  free, group
 *   DESCRIPTOR      page       pages  zspage  address           flags             next, words
 *
 * All FRAMES parts of one chain carry one time_ns, which is their generation.
 * Errors are negative errno values in two's complement.
 *
 * COMPACT_CLASS is told of each size class in which a run of compaction moved an object or freed a
 * page, when the run has left it: word 5 the time when it began with the class, 0 if that or its
 * end was not seen, word 6 the beginning of the run. COMPACT_BEGIN and COMPACT_END: word 5
 * the beginning of the run; word 6 of the latter how many COMPACT_CLASS there were.
 *
 * A scan of a pool is SCAN_BEGIN, STATE and FRAMES of every zspage, SCAN_END
 * for each class, then SCANNED with the pool's totals as they are then. All zspages of a class
 * carry the time of its SCAN_BEGIN. Capacity and objects are the class's own statistics, in
 * objects; SCAN_END carries ZS_FLAG_STEADY if all of them were as at SCAN_BEGIN and equal what was
 * walked.
 *
 * OBJECT records have the handle for a subject. Word 4 of OBJECT_STORED is class index:32 | CPU:16
 * | node of the CPU:16, word 5 what the handle leads to, the frame of its head in the highest
 * bits; with ZS_FLAG_MOVED it is no new object. OBJECT_OWNER and then OBJECT_SLOT, where
 * it is known, follow the OBJECT_STORED of an object, and bear its time unless another was stored
 * on that CPU since. Word 3 of OBJECT_OWNER is requested bytes:32
 * | how many ns zs_malloc() took:32, no more than these hold, 0 if it was not timed. Word 4 of
 * OBJECT_FREED is that of OBJECT_STORED, without the class.
 *
 * LINKS and DESCRIPTOR are told only on demand and are no observations: they
 * show a zspage as it lies there. LINKS: words 3 and 4 as above, word 5 the
 * length of the free list (ZS_UNKNOWN if it was not walked), word 6 the group
 * in whose list it was found | list:8 << 8, see ZS_LINK_x. DESCRIPTOR: word 1
 * is the zspage that it points back to, word 5 its next pointer or handle, word
 * 6 its first_obj_offset word | refcount << 32.
 */
#ifndef ZS_WIRE_H
#define ZS_WIRE_H

#define ZS_WIRE_VERSION 2
#define ZS_RECORD_WORDS 7
#define ZS_FRAMES_PER_RECORD 4
#define ZS_NAME_BYTES 32

#define ZS_KIND_STATE 1
#define ZS_KIND_FRAMES 2
#define ZS_KIND_DEATH 3
#define ZS_KIND_POOL_CREATED 16
#define ZS_KIND_POOL_DESTROYED 17
#define ZS_KIND_COMPACT_BEGIN 18
#define ZS_KIND_COMPACT_END 19
#define ZS_KIND_MIGRATION 20
#define ZS_KIND_ALLOC_FAILURE 21
#define ZS_KIND_DEFERRED_FREE 22
#define ZS_KIND_COMPACT_CLASS 23
/* Told on demand, by the add-on objects.bpf.c. */
#define ZS_KIND_OBJECT_STORED 24
#define ZS_KIND_OBJECT_OWNER 25
#define ZS_KIND_OBJECT_SLOT 26
#define ZS_KIND_OBJECT_FREED 27
#define ZS_KIND_SCAN_BEGIN 32
#define ZS_KIND_SCAN_END 33
#define ZS_KIND_SCANNED 34
#define ZS_DETAIL_LINKS 48
#define ZS_DETAIL_DESCRIPTOR 49

/* STATE: the zspage holds one object that fills its page. */
#define ZS_FLAG_HUGE 1
/* STATE: first object of a zspage that was on no list before: a birth. */
#define ZS_FLAG_NEWBORN 2
/* POOL_CREATED: first met in use; its creation was not seen. */
#define ZS_FLAG_LATE 4
/* STATE: told by a scan, which sees locks too. */
#define ZS_FLAG_SCANNED 8
/* STATE of a scan: the zspage or one of its pages is locked; a page is isolated for migration. */
#define ZS_FLAG_LOCKED 16
#define ZS_FLAG_ISOLATED 32
/* SCAN_END: what was walked equals the class's statistics, which did not change meanwhile. */
#define ZS_FLAG_STEADY 1
/* OBJECT_STORED: the object was there; compaction has moved it. */
#define ZS_FLAG_MOVED 1
/* OBJECT_OWNER: the cgroup is the one that the stored page is charged to, else the task's. */
#define ZS_FLAG_OF_PAGE 1
/* OBJECT_SLOT: a swap entry, else a block of the device. */
#define ZS_FLAG_SWAP 1
/* LINKS: the zspage is not what its list says; the walk of that list ended here. */
#define ZS_FLAG_TORN 1

#define ZS_UNKNOWN 0xffffffffffffffff
/* LINKS, word 6: the list node before it is not the one that led to it. */
#define ZS_LINK_BACK_BROKEN 1
/* LINKS, word 6: it belongs to another pool. */
#define ZS_LINK_FOREIGN 2

/* What began a compaction: a call of zs_compact(), or the shrinker, as far as that is hooked. */
#define ZS_TRIGGER_CALL 1
#define ZS_TRIGGER_SHRINKER 2
/* Tasks that can be inside of zs_shrinker_scan() at one time and known to be. */
#define ZS_SHRINKING_MAX 1024

/* Pools that can be watched at one time; a power of two. */
#define ZS_POOLS_MAX 32
/* Longest page chain a zspage can have (CONFIG_ZSMALLOC_CHAIN_SIZE <= 16). */
#define ZS_CHAIN_MAX 16

/* Words of one per-CPU counter element: per size class, and per pool. */
#define ZS_CLASS_ALLOCS 0
#define ZS_CLASS_FREES 1
#define ZS_CLASS_MOVES 2
/* size:32 | objs_per_zspage:16 | pages_per_zspage:16, set at the pool's birth or the first use. */
#define ZS_CLASS_GEOMETRY 3
#define ZS_CLASS_WORDS 4

#define ZS_POOL_FAILURES 0
#define ZS_POOL_MIGRATIONS 1
#define ZS_POOL_MIGRATION_FAILURES 2
#define ZS_POOL_COMPACTIONS 3
#define ZS_POOL_PAGES_FREED 4
#define ZS_POOL_WORDS 5

/* Words of the loss counters, one per-CPU element for the whole program. */
#define ZS_LOSS_RING_FULL 0
/* A return without its entry, or an entry whose return never came. */
#define ZS_LOSS_UNPAIRED 1
#define ZS_LOSS_WORDS 2

/*
 * Latency: how long calls take, in buckets of powers of two. Bucket b holds those from 2^(b-1) up
 * to, but not including, 2^b ns; the last one all that are longer. The key of a cell is
 * serial:32 | class index:16 | kind:16, the kind in the lowest bits.
 */
#define ZS_LATENCY_BUCKETS 40
#define ZS_LATENCY_CELLS 4096
/* zs_malloc() from its call to its return, with success and without. */
#define ZS_LATENCY_ALLOC 0
#define ZS_LATENCY_ALLOC_FAILED 1
/* zs_free() from its call to its return. */
#define ZS_LATENCY_FREE 2
/* From the call until the class lock is held: in zspages that exist, in new ones, of frees. */
#define ZS_LATENCY_ALLOC_LOCK 3
#define ZS_LATENCY_ALLOC_GROW 4
#define ZS_LATENCY_FREE_LOCK 5
/* zs_page_migrate() from its call to its return, with success and without. */
#define ZS_LATENCY_MIGRATION 6
#define ZS_LATENCY_MIGRATION_FAILED 7
#define ZS_LATENCY_KINDS 8
/* Of a call that ended before its size class was known. */
#define ZS_LATENCY_NO_CLASS 0xffff

/* Words of what latency could not tell: calls without one of their ends, and without a cell. */
#define ZS_LATENCY_UNPAIRED 0
#define ZS_LATENCY_NO_CELL 1
#define ZS_LATENCY_LOSSES 2

/* Tasks that can be about to store something at one time. */
#define ZS_OBJECT_TASKS 4096
/* SWP_TYPE_SHIFT of include/linux/swapops.h, with words of 64 bits. */
#define ZS_SWAP_TYPE_SHIFT 58
/* Words of what objects could not tell: pools that have no entry, tasks that found no place. */
#define ZS_OBJECT_NO_POOL 0
#define ZS_OBJECT_NO_TASK 1
#define ZS_OBJECT_LOSSES 2

/* Words of the buffer that the scanner fills, slice by slice: 36,864 records. */
#define ZS_SCAN_WORDS 258048

/* u32 and u64 are the including dialect's. */
struct zs_record {
	u64 word[ZS_RECORD_WORDS];
};

struct zs_class_counters {
	u64 word[ZS_CLASS_WORDS];
};

struct zs_pool_counters {
	u64 word[ZS_POOL_WORDS];
};

struct zs_loss_counters {
	u64 word[ZS_LOSS_WORDS];
};

struct zs_latency {
	u64 count;
	u64 sum_ns;
	u64 bucket[ZS_LATENCY_BUCKETS];
};

struct zs_latency_losses {
	u64 word[ZS_LATENCY_LOSSES];
};

struct zs_object_losses {
	u64 word[ZS_OBJECT_LOSSES];
};

/* A pool, by address; serial 0 if it found no place and is not watched. User space reads it, twin:
 * zpobs/sources/counters.py. */
struct zs_pool_entry {
	u32 serial;
	u32 slot;
	u64 since_ns;
	u64 late;
	char name[ZS_NAME_BYTES];
	u64 deferred_begin_ns;
	u64 run_begin_ns;
	u64 run_moves;
	u64 run_pages;
	u64 run_class;
	u64 run_task;
	u64 run_trigger;
	u64 run_classes;
	u64 class_index;
	u64 class_begin_ns;
	u64 class_moves;
	u64 class_pages;
};

/*
 * What the scanner is asked and answers, mapped by user space; twin:
 * zpobs/sources/scanner.py. All words are u64.
 */
#define ZS_ASK_POOL 0
#define ZS_ASK_SERIAL 1
#define ZS_ASK_FIRST_CLASS 2
#define ZS_ASK_LAST_CLASS 3
/* Whether LINKS and DESCRIPTOR records are wanted. */
#define ZS_ASK_DETAIL 4
#define ZS_ASK_VMEMMAP 5
#define ZS_ASK_DIRECT_MAP 6
#define ZS_ASK_LOCKED_MASK 7
#define ZS_ASK_ISOLATED_MASK 8
/* A descriptor of the asking process, and what is looked for through it. */
#define ZS_ASK_FD 9
#define ZS_ASK_FUNCTION 10
#define ZS_ASK_FRAME 11
#define ZS_ASK_TOKEN 12
/* Whether a walk goes on where the last slice ended. */
#define ZS_ASK_RESUME 13
#define ZS_ANSWER_WORDS 16
#define ZS_ANSWER_DONE 17
#define ZS_ANSWER_POINTER 18
#define ZS_CONTROL_WORDS 32

/*
 * What bpf/pageblocks.bpf.c is told; twin: zpobs/sources/pageblocks.py. Kernel memory to be copied
 * or blocks to be looked up, how many; the order of a block, the bits that it has, the order of a
 * section in pages; what mem_section points to, what a section's map must lead to; the size of
 * struct mem_section, the places of its members, and that of the bitmap in its usage.
 */
#define ZS_BLOCKS_ADDRESS 0
#define ZS_BLOCKS_COUNT 1
#define ZS_BLOCKS_ORDER 2
#define ZS_BLOCKS_BITS 3
#define ZS_BLOCKS_SECTION_SHIFT 4
#define ZS_BLOCKS_MEM_SECTION 5
#define ZS_BLOCKS_VMEMMAP 6
#define ZS_BLOCKS_SECTION_BYTES 7
#define ZS_BLOCKS_MAP_AT 8
#define ZS_BLOCKS_USAGE_AT 9
#define ZS_BLOCKS_FLAGS_AT 10
#define ZS_BLOCKS_PAGE_BYTES 11
#define ZS_BLOCKS_CONTROL_WORDS 16
/* Blocks that one run looks up. */
#define ZS_BLOCKS_WORDS 8192

/* Words of a pool that was found: address, shrinker, and the name. */
#define ZS_FOUND_WORDS 6

#endif
