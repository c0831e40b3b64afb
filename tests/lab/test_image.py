"""The initrd's format and the order of its modules."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from lab.image import boot_order, cpio

FOLDER = stat.S_IFDIR | 0o755
PROGRAM = stat.S_IFREG | 0o755
PLAIN = stat.S_IFREG | 0o644


def test_cpio_is_padded_so_that_another_archive_may_follow() -> None:
    archive = cpio([("a", FOLDER, b""), ("a/b", PLAIN, b"123")])
    assert len(archive) % 512 == 0
    assert archive.startswith(b"070701")
    # Each head starts at a multiple of four.
    found = [at for at in range(len(archive)) if archive.startswith(b"070701", at)]
    assert len(found) == 3
    assert all(at % 4 == 0 for at in found)
    assert archive[found[1] + 54 : found[1] + 62] == b"00000003"


@pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio is not on this machine")
def test_cpio_is_read_by_cpio(tmp_path: Path) -> None:
    contents = bytes(range(256)) * 5
    archive = cpio([("bin", FOLDER, b""), ("bin/x", PROGRAM, contents), ("empty", PLAIN, b"")])
    subprocess.run(
        ["cpio", "-i", "--quiet", "--no-absolute-filenames"],
        cwd=tmp_path,
        input=archive,
        check=True,
    )
    assert (tmp_path / "bin/x").read_bytes() == contents
    assert (tmp_path / "bin/x").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "empty").read_bytes() == b""


def test_modules_are_loaded_after_what_they_need() -> None:
    dependencies = """\
kernel/fs/9p/9p.ko: kernel/net/9p/9pnet.ko kernel/fs/netfs/netfs.ko
kernel/net/9p/9pnet_virtio.ko: kernel/net/9p/9pnet.ko
kernel/net/9p/9pnet.ko:
kernel/fs/netfs/netfs.ko:
kernel/drivers/virtio/virtio-pci.ko:
"""
    order = boot_order(dependencies, ["virtio_pci", "ext4", "9p", "9pnet_virtio"])
    assert order == [
        "kernel/drivers/virtio/virtio-pci.ko",
        "kernel/fs/netfs/netfs.ko",
        "kernel/net/9p/9pnet.ko",
        "kernel/fs/9p/9p.ko",
        "kernel/net/9p/9pnet_virtio.ko",
    ]
