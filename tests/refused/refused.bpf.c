// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Programs that every verifier refuses, each for another reason. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("syscall")
int wild_pointer(void *ctx)
{
	return *(volatile int *)(unsigned long)bpf_get_prandom_u32();
}

SEC("syscall")
int endless_loop(void *ctx)
{
	volatile int turns = 0;

	do
		turns++;
	while (turns != -1);
	return turns;
}

/* Its log is megabytes long. */
SEC("syscall")
int too_many_steps(void *ctx)
{
	unsigned int sum = 0;

	for (unsigned int turn = 0; turn < bpf_get_prandom_u32(); turn++)
		sum += bpf_get_prandom_u32();
	return sum;
}
