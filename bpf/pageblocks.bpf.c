/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Reads what the kernel keeps of pageblocks: their migratetypes. Programs of the
 * syscall kind, as the scanner's. User space tells where everything is
 * (ZS_BLOCKS_x in zs_wire.h); of a block whose memory is not as it is told nothing
 * is believed.
 *
 * With SPARSEMEM the flags of a block stand with its section (mm/page_alloc.c,
 * get_pageblock_bitmap): mem_section leads to pages full of struct mem_section,
 * whose usage ends in a bitmap. section_mem_map is the address of the descriptor of
 * frame 0 for every section with SPARSEMEM_VMEMMAP, with flags in its lowest bits.
 */
#include "zs_core.h"
#include "zs_wire.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define SECTION_FLAGS 0xfffULL
#define SECTION_HAS_MEM_MAP 2ULL

u64 control[ZS_BLOCKS_CONTROL_WORDS] SEC(".bss.control");
u64 blocks[ZS_BLOCKS_WORDS] SEC(".bss.blocks");

static __always_inline u64 word_at(u64 address)
{
	u64 word = 0;

	bpf_probe_read_kernel(&word, sizeof(word), (const void *)address);
	return word;
}

static __always_inline u64 block_flags(u64 block)
{
	u64 order = control[ZS_BLOCKS_ORDER] & 31, bits = control[ZS_BLOCKS_BITS] & 63;
	u64 shift = control[ZS_BLOCKS_SECTION_SHIFT] & 63;
	u64 bytes = control[ZS_BLOCKS_SECTION_BYTES], frame = block << order;
	u64 per_root, root, section, map, usage, bit, number = frame >> shift;

	if (!bytes || !bits)
		return ZS_UNKNOWN;
	per_root = control[ZS_BLOCKS_PAGE_BYTES] / bytes;
	if (!per_root)
		return ZS_UNKNOWN;
	root = word_at(control[ZS_BLOCKS_MEM_SECTION] + number / per_root * 8);
	if (!root)
		return ZS_UNKNOWN;
	section = root + number % per_root * bytes;
	map = word_at(section + control[ZS_BLOCKS_MAP_AT]);
	usage = word_at(section + control[ZS_BLOCKS_USAGE_AT]);
	if (!usage || !(map & SECTION_HAS_MEM_MAP) ||
	    (map & ~SECTION_FLAGS) != control[ZS_BLOCKS_VMEMMAP])
		return ZS_UNKNOWN;
	bit = ((frame & ((1ULL << shift) - 1)) >> order) * bits;
	return word_at(usage + control[ZS_BLOCKS_FLAGS_AT] + bit / 64 * 8) >> bit % 64 &
	       ((1ULL << bits) - 1);
}

static long block_step(u32 at, void *unused)
{
	if (at >= ZS_BLOCKS_WORDS || at >= control[ZS_BLOCKS_COUNT])
		return 1;
	blocks[at] = block_flags(blocks[at]);
	return 0;
}

/* Block numbers in, their flags out. */
SEC("syscall")
int read_blocks(void *ctx)
{
	bpf_loop(ZS_BLOCKS_WORDS, block_step, 0, 0);
	return 0;
}

static long copy_step(u32 at, void *unused)
{
	if (at >= ZS_BLOCKS_WORDS || at >= control[ZS_BLOCKS_COUNT])
		return 1;
	blocks[at] = word_at(control[ZS_BLOCKS_ADDRESS] + at * 8ULL);
	return 0;
}

/* Words of kernel memory, for the note in which the kernel tells where its tables are. */
SEC("syscall")
int read_words(void *ctx)
{
	bpf_loop(ZS_BLOCKS_WORDS, copy_step, 0, 0);
	return 0;
}
