"""Which kernel a name means, and what a package index says can be booted."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.archive import UnknownKernelError, choose, kernels_of, newest_of_series, parse_index
from lab.host import EXIT_USAGE

INDEX = """\
Package: linux-image-6.1.0-9-amd64
Version: 6.1.100-1
Depends: kmod, linux-base (>= 4.3~), initramfs-tools (>= 0.120) | linux-initramfs-tool

Package: linux-image-6.1.0-50-amd64
Version: 6.1.176-1
Depends: kmod

Package: linux-headers-6.1.0-50-amd64
Version: 6.1.176-1
Depends: linux-headers-6.1.0-50-common (= 6.1.176-1), linux-kbuild-6.1, gcc-12

Package: linux-headers-6.1.0-50-common
Version: 6.1.176-1

Package: linux-kbuild-6.1
Version: 6.1.176-1
Depends: libc6

Package: linux-image-6.12.115+deb13-amd64
Version: 6.12.115-1

Package: linux-image-6.12.115+deb13.1-amd64
Version: 6.12.115-2

Package: linux-headers-6.12.115+deb13.1-amd64
Version: 6.12.115-2
Depends: linux-headers-6.12.115+deb13.1-common (= 6.12.115-2), linux-kbuild-6.12.115+deb13.1

Package: linux-image-7.1.3+deb13-amd64
Version: 7.1.3-1
Depends: linux-binary-7.1.3+deb13-amd64 (= 7.1.3-1), linux-modules-7.1.3+deb13-amd64 (= 7.1.3-1)

Package: linux-binary-7.1.3+deb13-amd64
Version: 7.1.3-1

Package: linux-image-7.3.4+deb13-amd64
Version: 7.3.4-1
Depends: dracut | initramfs-tools, linux-base-7.3.4+deb13-amd64 (= 7.3.4-1), \
linux-binary-7.3.4+deb13-amd64 (= 7.3.4-1), linux-modules-7.3.4+deb13-amd64 (= 7.3.4-1)

Package: linux-binary-7.3.4+deb13-amd64
Version: 7.3.4-1

Package: linux-modules-7.3.4+deb13-amd64
Version: 7.3.4-1
Depends: kmod

Package: linux-image-7.3.9+deb13-amd64
Version: 7.3.9-1
Depends: linux-modules-7.3.9+deb13-amd64 (= 7.3.9-1)

Package: linux-modules-7.3.9+deb13-amd64
Version: 7.3.9-2

Package: linux-image-7.3.4+deb13-rt-amd64
Version: 7.3.4-1

Package: linux-image-7.3.4+deb13-cloud-amd64
Version: 7.3.4-1

Package: linux-image-amd64
Version: 7.3.4-1

Package: busybox-static
Version: 1:1.37.0-6

Package: bash
Version: 5
"""
KERNELS = kernels_of(parse_index(INDEX))


def test_only_the_plain_flavour_is_offered() -> None:
    assert [kernel.release for kernel in KERNELS] == [
        "7.3.9+deb13-amd64",
        "7.3.4+deb13-amd64",
        "7.1.3+deb13-amd64",
        "6.12.115+deb13.1-amd64",
        "6.12.115+deb13-amd64",
        "6.1.0-50-amd64",
        "6.1.0-9-amd64",
    ]


def test_a_series_means_its_newest_bootable_kernel() -> None:
    assert choose(KERNELS, "7.3").release == "7.3.4+deb13-amd64"
    assert choose(KERNELS, "6.12").release == "6.12.115+deb13.1-amd64"
    # Numbers, not text: 50 is more than 9.
    assert choose(KERNELS, "6.1").release == "6.1.0-50-amd64"
    assert [kernel.series for kernel in newest_of_series(KERNELS)] == ["7.3", "7.1", "6.12", "6.1"]


@pytest.mark.parametrize("name", ["6.12.115+deb13", "6.12.115+deb13-amd64"])
def test_an_exact_version_is_taken(name: str) -> None:
    assert choose(KERNELS, name).release == "6.12.115+deb13-amd64"


def test_split_packages_are_all_wanted_and_an_absent_base_is_not() -> None:
    assert choose(KERNELS, "7.3").packages == [
        "linux-binary-7.3.4+deb13-amd64=7.3.4-1",
        "linux-image-7.3.4+deb13-amd64=7.3.4-1",
        "linux-modules-7.3.4+deb13-amd64=7.3.4-1",
    ]
    assert choose(KERNELS, "6.1").packages == ["linux-image-6.1.0-50-amd64=6.1.176-1"]


def test_headers_come_whole_and_without_a_compiler_or_not_at_all() -> None:
    assert choose(KERNELS, "6.1").headers == [
        "linux-headers-6.1.0-50-amd64=6.1.176-1",
        "linux-headers-6.1.0-50-common=6.1.176-1",
        "linux-kbuild-6.1=6.1.176-1",
    ]
    assert choose(KERNELS, "6.12").headers == []


def test_modules_of_another_version_are_no_modules() -> None:
    with pytest.raises(UnknownKernelError, match=r"lacks linux-modules-7\.3\.9"):
        choose(KERNELS, "7.3.9+deb13")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("5.10", "kernel 5.10 is not in the archive; there are: 7.3, 6.12, 6.1"),
        (
            "7.1",
            "kernel 7.1 cannot boot, the archive lacks linux-modules-7.1.3+deb13-amd64; "
            "there are: 7.3, 6.12, 6.1",
        ),
    ],
)
def test_a_missing_kernel_is_told_in_one_line(name: str, message: str) -> None:
    with pytest.raises(UnknownKernelError) as caught:
        choose(KERNELS, name)
    assert str(caught.value) == message
    assert caught.value.status == EXIT_USAGE


def test_no_address_is_in_the_tree() -> None:
    folder = Path(__file__).resolve().parents[2] / "lab"
    for name in ("archive.py", "host.py", "image.py", "vm.py", "init.sh"):
        assert "://" not in (folder / name).read_text()
