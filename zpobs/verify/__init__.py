"""The shadow model against the kernel: comparison, witnesses, and rounds of both."""
