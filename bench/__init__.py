"""Benchmarks: each prints its figures beside those of what it is compared with."""
