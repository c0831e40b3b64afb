"""Unpacks a kernel's boot image to the vmlinux within, which has the kernel's BTF.

For kernels that the archive has no modules of and that cannot boot:
``python -m lab.unpack 7.1 vmlinux`` and then ``zpobs doctor --btf vmlinux``.
"""

from __future__ import annotations

import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from lab.archive import Archive, UnknownKernelError, newest_of_series
from lab.host import HostError, LabError, Progress, cache_folder, call, need

# Documentation/arch/x86/boot.rst: setup_sects, and where the payload is in what follows.
_SETUP_SECTS_AT, _PAYLOAD_AT = 0x1F1, 0x248
_SECTOR = 512
_PACKERS = {
    b"\xfd7zXZ\0": ("xz", "xz-utils"),
    b"\x28\xb5\x2f\xfd": ("zstd", "zstd"),
    b"\x1f\x8b": ("gzip", "gzip"),
}


def unpacked(image: bytes) -> bytes:
    """Return the vmlinux in an x86 boot image; raise HostError if none is to be had of it."""
    offset, length = struct.unpack_from("<II", image, _PAYLOAD_AT)
    begin = ((image[_SETUP_SECTS_AT] or 4) + 1) * _SECTOR + offset
    # Behind the packed bytes stands their unpacked length, which is no part of them.
    packed = image[begin : begin + length]
    for magic, (tool, package) in _PACKERS.items():
        if packed.startswith(magic):
            done = subprocess.run(
                [need(tool, package), "-dc"], input=packed, check=False, capture_output=True
            )
            if not done.stdout.startswith(b"\x7fELF"):
                raise HostError(f"{tool} made no vmlinux of the image: {done.stderr!r}")
            return done.stdout
    raise HostError(f"the image is packed in a way not known here: {packed[:6]!r}")


def vmlinux_of(series: str, archive: Archive) -> tuple[str, bytes]:
    """Return the release and the vmlinux of the archive's newest kernel of a series.

    Of any, whether it can boot or not. Raise UnknownKernelError if there is none.
    """
    found = [each for each in newest_of_series(archive.kernels()) if each.series == series]
    carriers = [
        package
        for kernel in found
        for package in kernel.packages
        if package.startswith((f"linux-binary-{kernel.release}=", f"linux-image-{kernel.release}="))
    ]
    if not carriers:
        raise UnknownKernelError(f"kernel {series} is not in the archive")
    release = found[0].release
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for package in archive.download(carriers, folder):
            call([need("dpkg-deb", "dpkg"), "-x", str(package), str(folder / "tree")])
        for place in (f"boot/vmlinuz-{release}", f"usr/lib/modules/{release}/vmlinuz"):
            image = folder / "tree" / place
            if image.exists():
                return release, unpacked(image.read_bytes())
    raise HostError(f"the packages of {release} have no vmlinuz")


def main() -> int:
    """Write the vmlinux of a kernel of the archive to a file; return the exit status."""
    series, target = sys.argv[1:]
    try:
        release, vmlinux = vmlinux_of(series, Archive(cache_folder(), Progress()))
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return error.status
    Path(target).write_bytes(vmlinux)
    print(release)
    return 0


if __name__ == "__main__":
    sys.exit(main())
