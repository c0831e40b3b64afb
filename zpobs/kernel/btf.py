"""A reader of BTF, the kernel's own description of its types.

Knows the format (Documentation/bpf/btf.rst in the kernel tree) and nothing of
zsmalloc. Only what zpobs asks for is decoded: places of structure members,
sizes, array lengths, values of enumerations and the names of functions.
"""

from __future__ import annotations

import contextlib
import struct
from array import array
from dataclasses import dataclass
from pathlib import Path

from zpobs.errors import EnvironmentLacksError

_MAGIC = 0xEB9F
_HEADER = struct.Struct("<HBBIIIII")
_TYPE = struct.Struct("<III")
_MEMBER = struct.Struct("<III")
_ARRAY = struct.Struct("<III")
_ENUMERATOR = struct.Struct("<II")
_ENUMERATOR64 = struct.Struct("<III")

_INT, _PTR, _ARRAY_KIND, _STRUCT, _UNION, _ENUM = 1, 2, 3, 4, 5, 6
_FWD, _TYPEDEF, _VOLATILE, _CONST, _RESTRICT = 7, 8, 9, 10, 11
_FUNC, _FUNC_PROTO, _VAR, _DATASEC, _FLOAT, _DECL_TAG, _TYPE_TAG, _ENUM64 = range(12, 20)

_MODIFIERS = frozenset({_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG})
# More of them in a row than any type has: a damaged file may lead in circles.
_MODIFIERS_MAX = 64

# Bytes that follow the common part of a type: (fixed, per element).
_TAIL = {
    _INT: (4, 0),
    _PTR: (0, 0),
    _ARRAY_KIND: (12, 0),
    _STRUCT: (0, 12),
    _UNION: (0, 12),
    _ENUM: (0, 8),
    _FWD: (0, 0),
    _TYPEDEF: (0, 0),
    _VOLATILE: (0, 0),
    _CONST: (0, 0),
    _RESTRICT: (0, 0),
    _FUNC: (0, 0),
    _FUNC_PROTO: (0, 8),
    _VAR: (4, 0),
    _DATASEC: (0, 12),
    _FLOAT: (0, 0),
    _DECL_TAG: (4, 0),
    _TYPE_TAG: (0, 0),
    _ENUM64: (0, 12),
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a member lies in its structure: bit offset and width in bits."""

    bit_offset: int
    bits: int

    @property
    def offset(self) -> int:
        """Byte offset of a member that starts on a byte."""
        return self.bit_offset // 8


class _NamedTypes:
    """Ids of types by the place of their names: compact, for a kernel has 60,000 functions."""

    def __init__(self) -> None:
        self._names = array("I")
        self._ids = array("I")

    def add(self, name: int, type_id: int) -> None:
        self._names.append(name)
        self._ids.append(type_id)

    def find(self, names: list[int]) -> int | None:
        """Return the id of the first type that has one of these names."""
        for name in names:
            with contextlib.suppress(ValueError):
                return self._ids[self._names.index(name)]
        return None


class Btf:
    """One kernel's type information; for a module, with the kernel's as its base."""

    def __init__(self, data: bytes, *, base: Btf | None = None) -> None:
        magic, _, _, header_len, type_off, type_len, str_off, str_len = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise EnvironmentLacksError(
                "cannot read kernel type information",
                found=f"magic {magic:#x} where BTF has {_MAGIC:#x}",
                hint="a kernel with CONFIG_DEBUG_INFO_BTF",
            )
        self._data = data
        self._base = base
        self.string_end: int
        self.type_end: int
        self._strings_at = header_len + str_off
        self._strings_end = self._strings_at + str_len
        self._string_base = base.string_end if base else 0
        self._first_id = base.type_end if base else 1
        self.string_end = self._string_base + str_len
        self._at = array("I")
        self._structs = _NamedTypes()
        self._struct_ids: dict[str, int | None] = {}
        self._functions = _NamedTypes()
        self._enums = _NamedTypes()
        self._index(header_len + type_off, header_len + type_off + type_len)
        self.type_end = self._first_id + len(self._at)

    @classmethod
    def read(cls, path: Path, *, base: Btf | None = None) -> Btf:
        """Read a BTF file, such as /sys/kernel/btf/vmlinux."""
        return cls(path.read_bytes(), base=base)

    @property
    def of_a_module(self) -> bool:
        """Whether this is a module's, on the base of the kernel's."""
        return self._base is not None

    def _index(self, at: int, end: int) -> None:
        """Note where every type stands, and the ids of those that are asked for by name."""
        unpack = _TYPE.unpack_from
        data, tails, places = self._data, _TAIL, self._at
        type_id = self._first_id
        while at < end:
            name, info, _ = unpack(data, at)
            kind = info >> 24 & 0x1F
            places.append(at)
            if name:
                if kind == _FUNC:
                    self._functions.add(name, type_id)
                elif kind in (_STRUCT, _UNION):
                    self._structs.add(name, type_id)
                elif kind in (_ENUM, _ENUM64):
                    self._enums.add(name, type_id)
            if kind not in tails:
                raise EnvironmentLacksError(
                    "cannot read kernel type information",
                    found=f"BTF type {type_id} of unknown kind {kind}",
                    hint="a newer zpobs",
                )
            fixed, each = tails[kind]
            at += 12 + fixed + each * (info & 0xFFFF)
            type_id += 1

    def _name(self, offset: int) -> str:
        if self._base and offset < self._string_base:
            return self._base._name(offset)
        start = self._strings_at + offset - self._string_base
        return self._data[start : self._data.index(b"\0", start)].decode()

    def _name_offsets(self, name: str) -> list[int]:
        """Return where a name stands, in these strings or the base's; most often once."""
        text = name.encode() + b"\0"
        found = self._base._name_offsets(name) if self._base else []
        begin = at = self._strings_at
        if self._data.startswith(text, begin):
            found.append(self._string_base)
        while (at := self._data.find(b"\0" + text, at, self._strings_end) + 1) > 0:
            found.append(self._string_base + at - begin)
        return found

    def _type(self, type_id: int) -> tuple[int, int, int, int, int]:
        """Return (kind, vlen, kind flag, size or type id, byte offset of the tail)."""
        if type_id < self._first_id:
            if self._base is None:
                return 0, 0, 0, 0, 0
            return self._base._type(type_id)
        at = self._at[type_id - self._first_id]
        _, info, size = _TYPE.unpack_from(self._data, at)
        return info >> 24 & 0x1F, info & 0xFFFF, info >> 31, size, at + 12

    def _owner(self, type_id: int) -> Btf:
        if type_id < self._first_id and self._base:
            return self._base._owner(type_id)
        return self

    def _resolve(self, type_id: int) -> int:
        """Follow typedefs and qualifiers to the type itself."""
        for _ in range(_MODIFIERS_MAX):
            kind, _, _, target, _ = self._type(type_id)
            if kind not in _MODIFIERS:
                return type_id
            type_id = target
        raise ValueError(f"BTF type {type_id} leads in circles")

    def _struct_id(self, name: str) -> int | None:
        # Kept: a walk of kernel memory asks for the same few again and again.
        if name not in self._struct_ids:
            found = self._structs.find(self._name_offsets(name))
            if found is None and self._base:
                found = self._base._struct_id(name)
            self._struct_ids[name] = found
        return self._struct_ids[name]

    def _size_of(self, type_id: int) -> int:
        resolved = self._resolve(type_id)
        kind, _, _, size, tail = self._type(resolved)
        if kind == _PTR:
            return 8
        if kind == _ARRAY_KIND:
            element, _, count = _ARRAY.unpack_from(self._owner(resolved)._data, tail)
            return self._size_of(element) * int(count)
        return size if kind in (_INT, _STRUCT, _UNION, _ENUM, _ENUM64, _FLOAT) else 0

    def has_struct(self, name: str) -> bool:
        """Tell whether a structure of this name is described."""
        return self._struct_id(name) is not None

    def size(self, name: str) -> int | None:
        """Return a structure's size in bytes, None if there is no such structure."""
        found = self._struct_id(name)
        return None if found is None else self._size_of(found)

    def place(self, struct_name: str, member: str) -> Place | None:
        """Return where a member lies; looks into anonymous members, None if absent."""
        found = self._struct_id(struct_name)
        return None if found is None else self._member(found, member)[0]

    def array_length(self, struct_name: str, member: str) -> int | None:
        """Return the number of elements of an array member, None if absent."""
        found = self._struct_id(struct_name)
        if found is None:
            return None
        place, type_id = self._member(found, member)
        if place is None:
            return None
        resolved = self._resolve(type_id)
        kind, _, _, _, tail = self._type(resolved)
        if kind != _ARRAY_KIND:
            return None
        count = _ARRAY.unpack_from(self._owner(resolved)._data, tail)[2]
        return int(count)

    def _member(self, type_id: int, wanted: str) -> tuple[Place | None, int]:
        kind, count, flag, _, tail = self._type(type_id)
        if kind not in (_STRUCT, _UNION):
            return None, 0
        data = self._owner(type_id)._data
        for number in range(count):
            name, member_type, offset = _MEMBER.unpack_from(data, tail + 12 * number)
            bits = offset >> 24 if flag else 0
            offset = offset & 0xFFFFFF if flag else offset
            if name and self._name(name) == wanted:
                return Place(offset, bits or 8 * self._size_of(member_type)), member_type
            if not name:
                inner, inner_type = self._member(self._resolve(member_type), wanted)
                if inner:
                    return Place(offset + inner.bit_offset, inner.bits), inner_type
        return None, 0

    def has_function(self, name: str) -> bool:
        """Tell whether the kernel has a function of this name that can be hooked by BTF."""
        known = self._functions.find(self._name_offsets(name)) is not None
        return known or bool(self._base and self._base.has_function(name))

    def enum(self, name: str) -> dict[str, int] | None:
        """Return the values of a named enumeration, in the order of its declaration."""
        type_id = self._enums.find(self._name_offsets(name))
        if type_id is None:
            return self._base.enum(name) if self._base else None
        kind, count, signed, _, at = self._type(type_id)
        form = _ENUMERATOR if kind == _ENUM else _ENUMERATOR64
        bits = 32 if kind == _ENUM else 64
        values = {}
        for number in range(count):
            text, low, *high = form.unpack_from(self._data, at + form.size * number)
            value = low | sum(high) << 32
            values[self._name(text)] = value - (1 << bits) * (signed and value >> bits - 1)
        return values
