"""Columns made of detail records, and their JSON."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.scan_records import (
    CLASSES,
    FIRST_FRAME,
    FLAGS,
    PAGES_AT,
    UNMARKED,
    ZSPAGES,
    ScanRecords,
    addresses,
    find,
    healthy,
)
from zpobs import wire
from zpobs.descriptors import UNTOLD, DescriptorDump, descriptor_dump
from zpobs.wire import Words


def entry(dump: DescriptorDump, row: int) -> dict[str, Any]:
    (made,) = dump.to_json(np.array([row]), FLAGS)
    return made


def test_every_zspage_has_its_words() -> None:
    """Zspage columns are what STATE and LINKS say, in the order of the walk."""
    table = descriptor_dump(healthy(), FLAGS).zspages
    assert table.address.tolist() == addresses(len(ZSPAGES))
    assert table.class_index.tolist() == [CLASSES[of].index for of, _ in ZSPAGES]
    assert table.inuse.tolist() == [inuse for _, inuse in ZSPAGES]
    assert table.huge.tolist() == [of == 3 for of, _ in ZSPAGES]
    assert table.fullness.tolist() == [0, 3, 11, 5, 9, 11, 11, 5, 11, 0]
    assert table.list_group.tolist() == table.fullness.tolist()
    assert table.free_list.tolist() == [4, 3, 0, 4, 1, 0, 0, 3, UNTOLD, UNTOLD]
    assert table.freeobj.tolist()[:3] == [0, 1, 0xFFFFFFFF]
    assert set(table.magic.tolist()) == {0x58}
    for clear in (table.torn, table.back_broken, table.foreign, table.locked, table.isolated):
        assert not clear.any()


def test_every_page_has_its_descriptor() -> None:
    """Descriptor columns follow the chains; type and offset come apart; frames are found."""
    dump = descriptor_dump(healthy(), FLAGS)
    table = dump.descriptors
    pages = [CLASSES[of].pages for of, _ in ZSPAGES]
    assert np.diff(dump.zspages.descriptor_start).tolist() == pages
    assert table.page.tolist() == [page for count in pages for page in range(count)]
    assert table.zspage.tolist() == [row for row, count in enumerate(pages) for _ in range(count)]
    assert table.address.tolist() == [PAGES_AT + 64 * frame for frame in table.frame.tolist()]
    assert table.frame[0] == FIRST_FRAME
    assert set(table.page_type.tolist()) == {0xF6}
    # 4096 and 8192 bytes into objects of 1744 bytes.
    assert table.first_obj_offset[3:6].tolist() == [0, 3 * 1744 - 4096, 5 * 1744 - 8192]
    assert set(table.refcount.tolist()) == {1}
    assert table.back.tolist() == dump.zspages.address[table.zspage].tolist()


def test_classes_have_their_geometry() -> None:
    """Class columns are SCAN_BEGIN's, and steady if SCAN_END says so."""
    words = healthy()
    words[find(words, wire.KIND_SCAN_END, 1), 0] &= ~np.uint64(wire.FLAG_STEADY << 8)
    words[find(words, wire.KIND_SCAN_END, 2), 6] += np.uint64(1)
    table = descriptor_dump(words, FLAGS).classes
    shapes = zip(
        table.index.tolist(),
        table.size.tolist(),
        table.objs_per_zspage.tolist(),
        table.pages_per_zspage.tolist(),
        strict=True,
    )
    assert list(shapes) == [(each.index, each.size, each.objs, each.pages) for each in CLASSES]
    assert table.steady.tolist() == [True, False, True, True]
    assert table.unchanged.tolist() == [True, True, False, True]


def test_a_walk_without_an_end_is_not_steady() -> None:
    """A class whose SCAN_END never came is neither steady nor unchanged."""
    words = healthy()
    table = descriptor_dump(words[: find(words, wire.KIND_SCAN_END, -1)], FLAGS).classes
    assert table.steady.tolist() == table.unchanged.tolist() == [True, True, True, False]


def test_without_a_page_type_the_whole_word_is_the_offset() -> None:
    """Where the kernel marks no type, no bits of the offset are taken for one."""
    words = healthy(page_type=0)
    words[find(words, wire.DETAIL_DESCRIPTOR), 6] = 0x0A001234 | 1 << 32
    table = descriptor_dump(words, UNMARKED).descriptors
    assert set(table.page_type.tolist()) == {UNTOLD}
    assert table.first_obj_offset[0] == 0x0A001234


def test_counts_below_zero_keep_their_sign() -> None:
    """A write lock is -1, and a reference count that fell below zero is shown so."""
    words = healthy()
    words[find(words, wire.DETAIL_LINKS), 3] = 0x58 | 0xFFFFFFFF << 32
    words[find(words, wire.DETAIL_DESCRIPTOR), 6] = 0xF6000000 | 0xFFFFFFFE << 32
    dump = descriptor_dump(words, FLAGS)
    assert (dump.zspages.lock[0], dump.descriptors.refcount[0]) == (-1, -2)
    assert dump.zspages.magic[0] == 0x58


def test_locks_are_the_states() -> None:
    """Locked and isolated are told by the flags of STATE."""
    words = healthy()
    words[find(words, wire.KIND_STATE, 1), 0] |= np.uint64(wire.FLAG_LOCKED << 8)
    words[find(words, wire.KIND_STATE, 2), 0] |= np.uint64(wire.FLAG_ISOLATED << 8)
    table = descriptor_dump(words, FLAGS).zspages
    assert np.flatnonzero(table.locked).tolist() == [1]
    assert np.flatnonzero(table.isolated).tolist() == [2]


def test_without_frames_the_rest_is_there() -> None:
    """Where no frame can be told, descriptors have all but their frames."""
    words = healthy()
    dump = descriptor_dump(words[wire.kinds(words) != wire.KIND_FRAMES], FLAGS)
    assert set(dump.descriptors.frame.tolist()) == {UNTOLD}
    assert len(dump.descriptors.page) == len(descriptor_dump(words, FLAGS).descriptors.page)
    assert entry(dump, 0)["descriptors"][0]["pfn"] is None


def test_the_last_walk_of_a_class_counts() -> None:
    """A class that was walked again is shown as the last walk found it, once."""
    again = ScanRecords()
    again.begin(CLASSES[1], 7, 2)
    again.zspage(0xFFFF888001234000, CLASSES[1], 2)
    again.end(CLASSES[1], 7, 2)
    dump = descriptor_dump(np.concatenate([healthy(), again.words]), FLAGS)
    mine = dump.zspages.class_index == 107
    assert dump.zspages.address[mine].tolist() == [0xFFFF888001234000]
    assert dump.classes.index.tolist() == [62, 202, 254, 107]
    assert len(dump.zspages.address) == len(ZSPAGES) - 3 + 1


def test_a_list_that_was_begun_again_shows_no_zspage_twice() -> None:
    """Of several sights of a zspage in one list the last one stays, with its descriptors."""
    made = ScanRecords()
    made.begin(CLASSES[1], 14, 6)
    made.zspage(0x1000, CLASSES[1], 2, group=5)
    made.zspage(0x2000, CLASSES[1], 2, group=5)
    made.zspage(0x1000, CLASSES[1], 3, group=5)
    made.zspage(0x2000, CLASSES[1], 3, group=5)
    made.end(CLASSES[1], 14, 6)
    dump = descriptor_dump(made.words, FLAGS)
    assert dump.zspages.address.tolist() == [0x1000, 0x2000]
    assert dump.zspages.inuse.tolist() == [3, 3]
    assert dump.descriptors.zspage.tolist() == [0, 0, 0, 1, 1, 1]
    assert dump.descriptors.back.tolist() == [0x1000] * 3 + [0x2000] * 3
    assert UNTOLD not in dump.descriptors.frame


def test_a_zspage_on_two_lists_is_shown_twice() -> None:
    """Sights in different lists are no repetition: both stay."""
    made = ScanRecords()
    made.begin(CLASSES[1], 7, 2)
    made.zspage(0x1000, CLASSES[1], 2, group=3)
    made.zspage(0x1000, CLASSES[1], 2, group=5)
    made.end(CLASSES[1], 7, 2)
    dump = descriptor_dump(made.words, FLAGS)
    assert dump.zspages.list_group.tolist() == [3, 5]
    assert dump.rows_of(np.array([0x1000], dtype=np.uint64)).tolist() == [1]


def test_a_torn_list_says_where() -> None:
    """A zspage at which a walk ended has its class and links, and nothing that was not told."""
    made = ScanRecords()
    made.begin(CLASSES[1], 7, 2)
    made.zspage(0x1000, CLASSES[1], 2)
    made.torn(0x2000, group=5, magic=0x11, links=wire.LINK_BACK_BROKEN | wire.LINK_FOREIGN)
    made.end(CLASSES[1], 7, 2, steady=False)
    table = descriptor_dump(made.words, FLAGS).zspages
    assert table.torn.tolist() == [False, True]
    assert table.back_broken.tolist() == table.foreign.tolist() == [False, True]
    assert (table.class_index[1], table.inuse[1], table.magic[1]) == (107, UNTOLD, 0x11)
    assert table.descriptor_start.tolist() == [0, 3, 3]


def test_a_list_that_returns_to_a_zspage_is_torn_there() -> None:
    """A break at the zspage that was just seen whole is a row of its own, without its state."""
    made = ScanRecords()
    made.begin(CLASSES[1], 7, 2)
    made.zspage(0x1000, CLASSES[1], 2)
    made.torn(0x1000, group=3)
    table = descriptor_dump(made.words, FLAGS).zspages
    assert (table.torn.tolist(), table.inuse.tolist()) == ([False, True], [2, UNTOLD])


@pytest.mark.parametrize("words", [healthy()[:0], healthy()[:1]])
def test_records_without_details_give_no_zspages(words: Words) -> None:
    """No record, or none with details, gives an empty dump that can be asked."""
    dump = descriptor_dump(words, FLAGS)
    assert len(dump.zspages.address) == len(dump.descriptors.page) == 0
    assert dump.rows_of(np.array([1, 2], dtype=np.uint64)).tolist() == [UNTOLD, UNTOLD]


def test_zspages_without_a_class_are_shown() -> None:
    """Details that no SCAN_BEGIN announces are shown with the class that STATE tells."""
    made = ScanRecords()
    made.zspage(0x1000, CLASSES[1], 2)
    table = descriptor_dump(made.words, FLAGS).zspages
    assert (table.class_row.tolist(), table.class_index.tolist()) == ([UNTOLD], [107])


def test_json_of_a_chain() -> None:
    """An entry has the zspage's words, and its descriptors with names of flags."""
    dump = descriptor_dump(healthy(), FLAGS)
    made = entry(dump, 3)
    first, second, third = made.pop("descriptors")
    assert made == {"magic": "0x58", "lock": 0, "free_list": 4, "list_group": 5}
    frame = int(dump.descriptors.frame[3])
    assert first == {
        "page": 0,
        "address": f"{PAGES_AT + 64 * frame:#x}",
        "pfn": frame,
        "flags": ["movable_ops", "private"],
        "flags_word": "0x17ffffc0004008",
        "type": "0xf6",
        "first_obj_offset": 0,
        "refcount": 1,
        "zspage": f"{addresses(4)[3]:#x}",
        "next": f"{PAGES_AT + 64 * frame + 64:#x}",
    }
    assert second["flags"] == ["movable_ops"]
    assert (third["page"], third["next"]) == (2, None)


def test_json_of_a_huge_zspage() -> None:
    """The one page of a huge zspage has a handle and no next, and there is no free list.

    The bit that marks the handle as in use is no part of it; an empty zspage has none.
    """
    made = entry(descriptor_dump(healthy(), FLAGS), 8)
    (only,) = made["descriptors"]
    assert only["handle"] == "0xffff888000f00008"
    assert "next" not in only
    (empty,) = entry(descriptor_dump(healthy(), FLAGS), 9)["descriptors"]
    assert empty["handle"] is None
    assert made["free_list"] is None


def test_json_of_what_was_not_seen() -> None:
    """A zspage that the details do not show has nulls, never zeros."""
    made = entry(descriptor_dump(healthy(), FLAGS), UNTOLD)
    assert set(made) == {"magic", "lock", "free_list", "list_group", "descriptors"}
    assert set(made.values()) == {None}


def test_rows_of_finds_each_address() -> None:
    """Rows are found by address, whatever the order, and are UNTOLD for others."""
    dump = descriptor_dump(healthy(), FLAGS)
    asked = np.array([*reversed(addresses(len(ZSPAGES))), 1, 2**64 - 1], dtype=np.uint64)
    assert dump.rows_of(asked).tolist() == [*range(len(ZSPAGES) - 1, -1, -1), UNTOLD, UNTOLD]
