// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Plays a script into a ring: what user space wrote into an array goes through
 * bpf_ringbuf_reserve and submit, or discard, as the probes' records do.
 * BPF_PROG_TEST_RUN runs it; nothing is attached anywhere.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define RECORD_WORDS 7

struct line {
	__u64 record[RECORD_WORDS];
	__u64 discard;
};

struct request {
	__u64 begin;
	__u64 count;
	__u64 emitted;
	__u64 refused;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct line);
} script SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ring SEC(".maps");

/* For the tests of map operations. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u64[3]);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, __u64);
	__type(value, __u64[2]);
} table SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 4);
	__uint(key_size, 0);
	__uint(value_size, 8);
} queue SEC(".maps");

struct progress {
	__u32 begin;
	__u32 emitted;
	__u32 refused;
};

static long emit_line(__u32 index, void *context)
{
	struct progress *progress = context;
	__u32 key = progress->begin + index;
	struct line *line = bpf_map_lookup_elem(&script, &key);
	__u64 *slot;

	if (!line)
		return 1;
	slot = bpf_ringbuf_reserve(&ring, sizeof(line->record), 0);
	if (!slot) {
		progress->refused++;
		return 0;
	}
	for (int i = 0; i < RECORD_WORDS; i++)
		slot[i] = line->record[i];
	if (line->discard)
		bpf_ringbuf_discard(slot, 0);
	else
		bpf_ringbuf_submit(slot, 0);
	progress->emitted++;
	return 0;
}

SEC("syscall")
int emit(struct request *request)
{
	struct progress progress = {.begin = request->begin};

	bpf_loop(request->count, emit_line, &progress, 0);
	request->emitted = progress.emitted;
	request->refused = progress.refused;
	return 0;
}

/* A record of another length: a bug that the consumer must name. */
SEC("syscall")
int emit_short(void *context)
{
	__u64 *slot = bpf_ringbuf_reserve(&ring, 40, 0);

	if (!slot)
		return 1;
	slot[0] = slot[1] = slot[2] = slot[3] = slot[4] = 0;
	bpf_ringbuf_submit(slot, 0);
	return 0;
}

/* Adds to the running CPU's element of counters, and takes one from the queue. */
SEC("syscall")
int count(void *context)
{
	__u32 key = 2;
	__u64 value = 0, *words = bpf_map_lookup_elem(&counters, &key);

	if (words)
		words[1] += 5;
	bpf_map_pop_elem(&queue, &value);
	return value;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
