"""zpobs: live, exact observability of the Linux zsmalloc allocator through eBPF."""
