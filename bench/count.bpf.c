/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The least that a walk of a pool can be: it follows the same pointers as the
 * scanner and counts zspages and descriptors. Of each it reads the pointers and
 * nothing else: of a zspage the next one and its first descriptor, of a
 * descriptor the next one. It tells nothing about them, checks nothing, and
 * goes on in one run.
 */
#include "zs_core.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define STEPS_MAX (1 << 23)
#define CHAIN_MAX 16

struct {
	u64 pool;
	u64 zspages;
	u64 descriptors;
} count SEC(".bss.count");

struct {
	u64 slot;
	u64 group;
	u64 head;
	u64 node;
	u64 size_class;
	u64 pages;
} at SEC(".bss.at");

static __always_inline u64 read_u64(u64 address)
{
	u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (const void *)address);
	return value;
}

static __always_inline int next_list(void)
{
	if (!at.size_class || ++at.group >= zs_bytes_size_class_lists() / 16) {
		at.group = 0;
		at.slot++;
		if (at.slot > zs_bytes_zs_pool_size_class() / 8)
			return 1;
		at.size_class =
			read_u64(count.pool + zs_at_zs_pool_size_class() + (at.slot - 1) * 8);
		at.pages = zs_read(size_class_pages_per_zspage, at.size_class);
		if (zs_read(size_class_index, at.size_class) != at.slot - 1) {
			at.size_class = 0;
			at.head = at.node = 0;
			return 0;
		}
	}
	at.head = at.size_class + zs_at_size_class_lists() + at.group * 16;
	at.node = read_u64(at.head);
	return 0;
}

static long step(u64 number, void *unused)
{
	/* Its first descriptor and behind it its list node: no more is read of a zspage. */
	const u64 apart = zs_at_zspage_list() - zs_at_zspage_first();
	u64 part[4] = {};
	u64 zpdesc, page;

	if (at.node == at.head)
		return next_list();
	count.zspages++;
	bpf_probe_read_kernel(part, apart + 8, (const void *)(at.node - apart));
	zpdesc = part[0];
	for (page = 0; page < CHAIN_MAX; page++) {
		if (page >= at.pages || !zpdesc)
			break;
		count.descriptors++;
		zpdesc = zs_read(zpdesc_next, zpdesc);
	}
	at.node = part[apart / 8 & 3];
	return 0;
}

SEC("syscall")
int count_pool(void *ctx)
{
	count.zspages = count.descriptors = 0;
	at.slot = at.group = at.head = at.node = at.size_class = 0;
	bpf_loop(STEPS_MAX, step, 0, 0);
	return 0;
}
