"""bpf(2) operations on real maps and programs."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.ring_producer import Producer
from zpobs.loaders.libbpf import BpfObject
from zpobs.sources import bpfmap

pytestmark = pytest.mark.native

WORDS = 3
ELEMENTS = 8


@pytest.fixture
def producer(producer_object: Path) -> Iterator[Producer]:
    with Producer(producer_object, ring_bytes=4096) as made:
        yield made


def key(number: int, length: int = 4) -> bytes:
    return number.to_bytes(length, sys.byteorder)


def per_cpu(seed: int) -> np.ndarray:
    cpus = bpfmap.possible_cpus()
    return np.arange(seed, seed + cpus * WORDS, dtype=np.uint64).reshape(cpus, WORDS)


def fill(producer: Producer) -> np.ndarray:
    values = np.stack([per_cpu(100 * index) for index in range(ELEMENTS)])
    for index, value in enumerate(values):
        bpfmap.update(producer.map_fd("counters"), key(index), value.tobytes())
    return values


@pytest.mark.parametrize(("start", "count"), [(0, 8), (0, 3), (3, 5), (7, 1), (2, 4)])
def test_a_batch_is_the_elements_asked_for(
    producer: Producer, monkeypatch: pytest.MonkeyPatch, start: int, count: int
) -> None:
    """One system call returns the per-CPU values of exactly the elements start..start+count."""
    values = fill(producer)
    monkeypatch.delattr(bpfmap, "lookup")
    found = bpfmap.lookup_batch(
        producer.map_fd("counters"), start, count, WORDS, bpfmap.possible_cpus()
    )
    assert np.array_equal(found, values[start : start + count])


def test_elements_are_read_one_by_one_where_batches_are_refused(
    producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel without batches for such maps gives the same values."""
    values = fill(producer)
    monkeypatch.setattr(bpfmap, "_MAP_LOOKUP_BATCH", 999)
    found = bpfmap.lookup_batch(producer.map_fd("counters"), 2, 5, WORDS, bpfmap.possible_cpus())
    assert np.array_equal(found, values[2:7])


def test_a_batch_beyond_the_map_is_an_error(producer: Producer) -> None:
    """Asking for elements that the map does not have raises OSError, no zeros."""
    with pytest.raises(OSError, match="No such file"):
        bpfmap.lookup_batch(producer.map_fd("counters"), 4, ELEMENTS, WORDS, bpfmap.possible_cpus())


def test_a_program_counts_on_its_cpu_alone(producer: Producer) -> None:
    """What a program adds shows in the sum over CPUs, read back by lookup as well."""
    for _ in range(3):
        producer.run("count")
    fd = producer.map_fd("counters")
    found = bpfmap.lookup_batch(fd, 0, ELEMENTS, WORDS, bpfmap.possible_cpus())
    assert int(found.sum()) == int(found[2, :, 1].sum()) == 15
    assert bpfmap.lookup(fd, key(2), found[2].nbytes) == found[2].tobytes()


def test_a_hash_is_walked_whole(producer: Producer) -> None:
    """keys and items give every element once."""
    fd = producer.map_fd("table")
    assert bpfmap.items(fd, 8, 16) == []
    wanted = {key(at, 8): bytes([at] * 16) for at in range(5)}
    for name, value in wanted.items():
        bpfmap.update(fd, name, value)
    assert set(bpfmap.keys(fd, 8)) == set(wanted)
    assert dict(bpfmap.items(fd, 8, 16)) == wanted


def test_a_queue_is_pushed_peeked_and_full(producer: Producer) -> None:
    """push appends, peek shows the front and leaves it, programs pop it, a full queue says so."""
    fd = producer.map_fd("queue")
    with pytest.raises(OSError, match="No such file") as none:
        bpfmap.peek(fd, 8)
    assert none.value.errno == errno.ENOENT
    for number in (7, 8, 9, 10):
        bpfmap.push(fd, key(number, 8))
    with pytest.raises(OSError, match="too long"):
        bpfmap.push(fd, key(11, 8))
    assert [bpfmap.peek(fd, 8), bpfmap.peek(fd, 8)] == [key(7, 8), key(7, 8)]
    assert producer.run("count") == 7
    assert bpfmap.peek(fd, 8) == key(8, 8)


def test_skipped_runs_are_told(producer: Producer) -> None:
    """A program that nothing interrupted has no skipped runs."""
    assert bpfmap.recursion_misses(producer.program_fd("count")) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs CAP_SYS_ADMIN")
def test_runs_are_told_while_they_are_timed(producer: Producer) -> None:
    """Each run of a program is counted, with a time, as long as the descriptor is open."""
    program = producer.program_fd("count")
    timing = bpfmap.enable_run_stats()
    try:
        before = bpfmap.program_runs(program)
        for _ in range(5):
            bpfmap.test_run(program)
        after = bpfmap.program_runs(program)
    finally:
        os.close(timing)
    assert (after.runs - before.runs, after.skipped) == (5, 0)
    assert after.run_ns > before.run_ns


def test_failures_are_os_errors() -> None:
    """A descriptor that is none raises OSError with EBADF."""
    with pytest.raises(OSError, match="Bad file descriptor") as failed:
        bpfmap.lookup(-1, key(0), 8)
    assert failed.value.errno == errno.EBADF


def test_libbpf_says_what_it_could_not_open(tmp_path: Path) -> None:
    """Opening what is no BPF object fails with libbpf's own words."""
    wrong = tmp_path / "wrong.o"
    wrong.write_bytes(b"nonsense")
    with pytest.raises(OSError, match=r"(?s)opening wrong\.o.*libbpf"):
        BpfObject(wrong)


def test_an_unknown_map_is_named(producer: Producer) -> None:
    """Asking for a map that the object lacks names it."""
    with pytest.raises(OSError, match="finding map nothing"):
        producer.map_fd("nothing")
