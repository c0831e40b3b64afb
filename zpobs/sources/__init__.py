"""Sources of records and counters: rings and maps of loaded BPF programs."""
