"""Throwaway virtual machines that run zpobs on unmodified Debian kernels.

``python -m lab run --kernel 7.3 -- COMMAND`` boots a kernel package of the Debian archive under
QEMU's software emulation and runs COMMAND there; see ``docs/lab.md``.
"""
