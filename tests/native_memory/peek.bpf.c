// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Reads a page of kernel memory for the witness, where there is no /proc/kcore. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct {
	__u64 address;
	__s64 error;
	__u64 task;
	__u64 unused;
} request SEC(".bss.request");

char page[4096] SEC(".bss.page");

SEC("syscall")
int peek(void *ctx)
{
	request.task = bpf_get_current_task();
	request.error = bpf_probe_read_kernel(page, sizeof(page), (void *)request.address);
	return 0;
}
