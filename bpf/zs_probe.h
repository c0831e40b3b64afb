/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What the programs of all probes share, in both dialects: pairing the entry of
 * a call with its return, reading a zspage, telling a record, finding a pool.
 */
#ifndef ZS_PROBE_H
#define ZS_PROBE_H

struct zspage_copy {
	u64 word[8];
};

/* x86 calls push the return address; arm64 keeps it in a register. */
#ifdef ZS_CALL_PUSHES_ADDRESS
#define ZS_RETURN_ADDRESS_BYTES 8
#else
#define ZS_RETURN_ADDRESS_BYTES 0
#endif

/*
 * A call is known by the place of its return address on the kernel stack: it
 * is unique among the calls that have not returned, nests as calls do, and
 * needs no task, so a function that runs inside itself is paired rightly.
 */
static __always_inline void call_begin(u64 frame, u64 first, u64 second, u64 third)
{
	struct zs_arguments arguments = {{first, second, third, 0}};
	struct zs_loss_counters *loss = loss_lookup();

	if (calls_lookup(frame) && loss)
		loss->word[ZS_LOSS_UNPAIRED]++;
	calls_store(frame, &arguments);
}

static __always_inline int call_end(u64 frame, struct zs_arguments *arguments)
{
	struct zs_arguments *found = calls_lookup(frame);
	struct zs_loss_counters *loss = loss_lookup();

	if (!found) {
		if (loss)
			loss->word[ZS_LOSS_UNPAIRED]++;
		return 0;
	}
	*arguments = *found;
	calls_delete(frame);
	return 1;
}

/* One read for the whole descriptor: a helper call costs more than its bytes. */
static __always_inline int zspage_read(struct zspage_copy *copy, u64 zspage)
{
	return bpf_probe_read_kernel(copy, ZS_SIZEOF_zspage, (void *)zspage);
}

/*
 * remove_zspage() leaves a list node that points to itself; a zspage that was
 * never inserted has a node of zeros (6.12 on) or one that points to itself.
 */
static __always_inline int zspage_off_list(struct zspage_copy *copy, u64 zspage)
{
	u64 next = ZS_GET(copy, zspage_list);

	return next == 0 || next == zspage + ZS_OFFSET(zspage_list);
}

static __always_inline void count_loss(u32 what)
{
	struct zs_loss_counters *loss = loss_lookup();

	if (loss)
		__sync_fetch_and_add(&loss->word[what & 1], 1);
}

static __always_inline struct zs_record *record_begin(u64 head, u64 time_ns, u64 subject)
{
	struct zs_record *record = ring_reserve();

	if (!record) {
		count_loss(ZS_LOSS_RING_FULL);
		return 0;
	}
	record->word[0] = head;
	record->word[1] = time_ns;
	record->word[2] = subject;
	return record;
}

/* The reader looks on a clock of its own; wake it early only when the ring fills. */
static __always_inline void record_end(struct zs_record *record)
{
	u64 pending_bytes = ring_pending_bytes();

	ring_submit(record,
		    pending_bytes >= ZS_RING_BYTES / 4 ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
}

static __always_inline void record_all_words(u64 head, u64 subject, u64 third, u64 fourth,
					     u64 fifth, u64 sixth)
{
	struct zs_record *record = record_begin(head, bpf_ktime_get_ns(), subject);

	if (!record)
		return;
	record->word[3] = third;
	record->word[4] = fourth;
	record->word[5] = fifth;
	record->word[6] = sixth;
	record_end(record);
}

static __always_inline void record_words(u64 head, u64 subject, u64 third, u64 fourth, u64 fifth)
{
	record_all_words(head, subject, third, fourth, fifth, 0);
}

static __always_inline u64 record_head(u32 kind, u32 flags, u32 a, u32 b, u32 serial)
{
	return kind | flags << 8 | a << 16 | (u64)b << 24 | (u64)serial << 32;
}

/* Without the base of all descriptors frames stay unknown: chains are not told, migrations say 0.
 */
static __always_inline u64 frame_of(u64 zpdesc)
{
	return ZS_VMEMMAP_BASE ? (zpdesc - ZS_VMEMMAP_BASE) / ZS_SIZEOF_page : 0;
}

/* The entry of a pool that may be on its way out: never registers. */
static __always_inline struct zs_pool_entry *pool_find(u64 pool)
{
	struct zs_pool_entry *entry = pools_lookup(pool);

	return entry && entry->serial ? entry : 0;
}

static __always_inline u64 pool_class(u64 pool, u32 index)
{
	u64 size_class = 0;

	bpf_probe_read_kernel(&size_class, sizeof(size_class),
			      (void *)(pool + ZS_OFFSET(zs_pool_size_class) + index * 8ULL));
	return size_class;
}

#endif
