"""The two descriptions of the wire format say the same."""

from __future__ import annotations

import re

import numpy as np
import pytest

from zpobs import wire
from zpobs.bpf_files import bpf_text
from zpobs.errors import RecordError

_DEFINE = re.compile(r"^#define ZS_(\w+)[ \t]+(\S+)", re.MULTILINE)
# Python names that need no place in C: sizes that follow, and names of columns.
_PYTHON_ONLY = {"RECORD_BYTES", "WORD_HEAD", "WORD_TIME", "WORD_SUBJECT"}


def c_constants() -> dict[str, int]:
    return {name: int(value, 0) for name, value in _DEFINE.findall(bpf_text("zs_wire.h"))}


def python_constants() -> dict[str, int]:
    return {
        name: value
        for name, value in vars(wire).items()
        if name.isupper() and isinstance(value, int) and not name.startswith("_")
    }


def test_every_constant_is_the_same_in_c_and_python() -> None:
    """Every #define of zs_wire.h has the same value in wire.py."""
    python = python_constants()
    c_side = c_constants()
    assert len(c_side) > 30
    assert {name: python.get(name) for name in c_side} == c_side


def test_python_invents_no_constant() -> None:
    """Every integer constant of wire.py stands in zs_wire.h, but for names of columns."""
    assert python_constants().keys() - c_constants().keys() == _PYTHON_ONLY


def test_kinds_holds_every_kind() -> None:
    """The set of known kinds is the set of ZS_KIND_ constants."""
    kinds = {value for name, value in c_constants().items() if name.startswith("KIND_")}
    assert kinds == wire.KINDS


def test_head_packs_each_field_in_its_place() -> None:
    """The head word is kind, flags, a, b by bytes, then 32 bits of serial."""
    head = wire.head(1, flags=2, a=3, b=4, serial=0x12345678)
    assert head.to_bytes(8, "little") == bytes([1, 2, 3, 4, 0x78, 0x56, 0x34, 0x12])


def test_an_unknown_kind_is_named_with_its_place() -> None:
    """check() tells which record has which unknown kind."""
    words = np.zeros((3, wire.RECORD_WORDS), dtype=np.uint64)
    words[:, 0] = (wire.KIND_STATE, 77, wire.KIND_DEATH)
    with pytest.raises(RecordError, match=r"record 1 of 3 has unknown kind 77"):
        wire.check(words)
