"""BTF from files: raw, in an ELF file, a module's beside its kernel's, and all that is none."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests.doctor.support import whole_builder
from tests.factories import BtfBuilder
from zpobs.errors import EXIT_BAD_INPUT, BadInputError
from zpobs.kernel.btf_file import read_btf_files

KERNEL = whole_builder(("zs_malloc",)).data()


def elf(sections: dict[str, bytes], *, form: bytes = b"\x02\x01") -> bytes:
    """Return an ELF file that has these sections and the one with their names."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name in [*sections, ".shstrtab"])
    at = 64
    body, heads = b"", [bytes(64)]
    for name, content in [*sections.items(), (".shstrtab", names)]:
        named = names.index(b"\0" + name.encode() + b"\0") + 1
        heads.append(struct.pack("<II16xQQ24x", named, 1, at + len(body), len(content)))
        body += content
    start = b"\x7fELF" + form + bytes(34)
    head = start + struct.pack("<Q10xHHH", at + len(body), 64, len(heads), len(heads) - 1)
    return head + body + b"".join(heads)


def kept(folder: Path, *contents: bytes) -> list[Path]:
    paths = [folder / f"file-{number}" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return paths


@pytest.mark.parametrize(
    "content", [KERNEL, elf({".text": b"code", ".BTF": KERNEL, ".BTF.ext": b"more"})]
)
def test_raw_and_elf_are_read(tmp_path: Path, content: bytes) -> None:
    """The bytes of /sys/kernel/btf/vmlinux, or a vmlinux with them in a section."""
    btf = read_btf_files(kept(tmp_path, content))
    assert btf.has_struct("zs_pool")
    assert btf.has_function("zs_malloc")


@pytest.mark.parametrize("in_elf", [False, True])
def test_a_module_comes_after_its_kernel(tmp_path: Path, in_elf: bool) -> None:
    """The second file goes on where the first ends."""
    base = BtfBuilder()
    u64 = base.integer("unsigned long", 8)
    module = BtfBuilder(base)
    module.struct("zs_pool", 8, [("name", u64, 0)])
    data = elf({".BTF": module.data()}) if in_elf else module.data()
    btf = read_btf_files(kept(tmp_path, base.data(), data))
    place = btf.place("zs_pool", "name")
    assert place is not None
    assert place.bits == 64


def _circle() -> bytes:
    made = BtfBuilder()
    made.struct("zspage", 8, [("inuse", 2, 0)])
    made.add(8, "round", 2)
    return made.data()


def _itself() -> bytes:
    made = BtfBuilder()
    made.struct("zspage", 8, [("", 1, 0)])
    return made.data()


WRONG = {
    "nothing": (b"", "0 bytes"),
    "text": (b"Linux version, and more of it than a header has\n", "magic 0x694c"),
    "a packed image": (bytes(0x202) + b"HdrS" + KERNEL, "scripts/extract-vmlinux"),
    "other order": (b"\xeb\x9f" + KERNEL[2:], "other byte order"),
    "cut off": (KERNEL[:-10], "cut off"),
    "a header alone": (KERNEL[:24], "cut off"),
    "damaged types": (KERNEL[:24] + b"\xff" * (len(KERNEL) - 100) + KERNEL[-76:], ""),
    "types in a circle": (_circle(), "damaged"),
    "a structure in itself": (_itself(), "damaged"),
    "ELF without BTF": (elf({".text": b"code"}), "without a section .BTF"),
    "ELF of 32 bits": (elf({".BTF": KERNEL}, form=b"\x01\x01"), "64-bit"),
    "ELF cut off": (elf({".BTF": KERNEL})[:-500], ""),
    "ELF, its head alone": (elf({".BTF": KERNEL})[:40], ""),
    "ELF with a base of its own": (elf({".BTF": KERNEL, ".BTF.base": KERNEL}), "/sys/kernel/btf"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_btf_is_refused(tmp_path: Path, name: str) -> None:
    """One line names the file and what it is instead; the status is 4."""
    content, found = WRONG[name]
    (path,) = kept(tmp_path, content)
    with pytest.raises(BadInputError) as refused:
        read_btf_files([path])
    assert refused.value.exit_status == EXIT_BAD_INPUT
    assert str(refused.value).startswith(f"{path} is no kernel's BTF; found: ")
    assert found in refused.value.found
    assert len(str(refused.value).splitlines()) == 1


def test_a_modules_btf_needs_its_kernels(tmp_path: Path) -> None:
    """Alone it is refused, and a kernel's is not a module's."""
    base = BtfBuilder()
    base.integer("unsigned long", 8)
    module = BtfBuilder(base)
    module.struct("zs_pool", 8, [("name", 1, 0)])
    first, second = kept(tmp_path, base.data(), module.data())
    with pytest.raises(BadInputError, match="give its kernel's first"):
        read_btf_files([second, first])
    with pytest.raises(BadInputError, match="a kernel's BTF where a module's is wanted"):
        read_btf_files([first, first])


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """A folder, or what is not there."""
    for path, found in ((tmp_path, "Is a directory"), (tmp_path / "none", "No such file")):
        with pytest.raises(BadInputError, match=f"cannot read {path}; found: {found}"):
            read_btf_files([path])


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_file_never_does_more_harm(tmp_path: Path, seed: int) -> None:
    """Whatever single byte is wrong: it is read, or refused in one line."""
    damaged = bytearray(KERNEL)
    damaged[seed * 7919 % len(damaged)] ^= 0x55
    (path,) = kept(tmp_path, bytes(damaged))
    try:
        read_btf_files([path])
    except BadInputError as refused:
        assert len(str(refused).splitlines()) == 1
