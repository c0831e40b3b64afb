"""The ring consumer, on real BPF rings and on memory laid out like one."""

from __future__ import annotations

import mmap
import os
import select
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.calls import calls_of
from tests.ring_producer import Producer
from zpobs import wire
from zpobs.errors import RecordError
from zpobs.sources.ring import RingConsumer
from zpobs.wire import Words

PAGE = mmap.PAGESIZE
SLOTS = PAGE // 64
BUSY = 1 << 31
DISCARDED = 1 << 30


def records(count: int, *, start: int = 0) -> Words:
    """Return records in which every word differs from all others."""
    words = np.arange(start * 7, (start + count) * 7, dtype=np.uint64) << np.uint64(8)
    words = words.reshape(-1, 7)
    words[:, 0] |= np.uint64(wire.KIND_STATE)
    return words


# -- memory laid out like a ring ------------------------------------------------


class HandMade:
    """A file with a consumer page, a producer page and the data twice."""

    def __init__(self, size: int = PAGE) -> None:
        self.size = size
        self.fd = os.memfd_create("ring")
        os.ftruncate(self.fd, 2 * PAGE + 2 * size)
        self.memory = mmap.mmap(self.fd, 2 * PAGE + 2 * size)
        self.consumer = np.frombuffer(self.memory, dtype=np.uint64, count=1)
        self.producer = np.frombuffer(self.memory, dtype=np.uint64, count=1, offset=PAGE)
        both = np.frombuffer(self.memory, dtype=np.uint64, offset=2 * PAGE)
        self.copies = both.reshape(2, size // 64, 8)

    def put(self, words: Words, *, flags: int = 0, length: int = 56) -> None:
        for row in words:
            at = int(self.producer[0]) % self.size // 64
            self.copies[:, at, 0] = length | flags
            self.copies[:, at, 1:] = row
            self.producer[0] += np.uint64(64)

    def set_header(self, at: int, header: int) -> None:
        self.copies[:, at % (self.size // 64), 0] = header


@pytest.fixture
def hand_made() -> Iterator[HandMade]:
    ring = HandMade()
    yield ring
    os.close(ring.fd)


def read(consumer: RingConsumer, limit: int = 1 << 18) -> Words:
    """Read up to so many records; those behind the ring's end take a second call."""
    words = consumer.read(limit)
    assert words is not None
    if len(words) < limit and (rest := consumer.read(limit - len(words))) is not None:
        return np.concatenate([words, rest])
    return words


def test_an_empty_ring_reads_none(hand_made: HandMade) -> None:
    """Nothing committed gives None and leaves the consumer position alone."""
    with RingConsumer(hand_made.fd, PAGE) as consumer:
        assert consumer.read() is None
        assert consumer.pending_bytes == 0
        assert consumer.fileno() == hand_made.fd


def test_reading_stops_in_front_of_a_busy_record(hand_made: HandMade) -> None:
    """A record still being written holds back itself and all behind it until it is committed."""
    hand_made.put(records(5))
    hand_made.set_header(2, 56 | BUSY)
    with RingConsumer(hand_made.fd, PAGE) as consumer:
        assert np.array_equal(read(consumer), records(2))
        assert consumer.read() is None
        assert int(hand_made.consumer[0]) == 2 * 64
        assert consumer.pending_bytes == 3 * 64
        hand_made.set_header(2, 56)
        assert np.array_equal(read(consumer), records(5)[2:])


def test_what_is_held_back_is_waited_for(hand_made: HandMade) -> None:
    """Until it is committed, or until patience ends, which shows."""
    hand_made.put(records(5))
    hand_made.set_header(2, 56 | BUSY)
    with RingConsumer(hand_made.fd, PAGE) as consumer:
        assert np.array_equal(np.concatenate([*consumer.batches()]), records(2))
        assert consumer.held_back
        threading.Timer(0.05, hand_made.set_header, (2, 56)).start()
        assert np.array_equal(np.concatenate([*consumer.batches(60.0)]), records(5)[2:])
        assert not consumer.held_back
        assert [*consumer.batches(60.0)] == []


def test_batches_end_however_fast_records_come(hand_made: HandMade) -> None:
    """What is reserved after the call is nobody's promise."""
    hand_made.put(records(5))
    with RingConsumer(hand_made.fd, PAGE) as consumer:
        found = consumer.batches()
        assert len(next(found)) == 5
        hand_made.put(records(3))
        assert [*found] == []
        assert consumer.pending_bytes == 3 * 64


def test_discarded_records_are_dropped(hand_made: HandMade) -> None:
    """Records that were reserved and discarded are skipped, their place freed."""
    hand_made.put(records(6))
    for at in (0, 3, 5):
        hand_made.set_header(at, 56 | DISCARDED)
    with RingConsumer(hand_made.fd, PAGE) as consumer:
        assert np.array_equal(read(consumer), records(6)[[1, 2, 4]])
        assert int(hand_made.consumer[0]) == 6 * 64


def test_only_discarded_records_read_as_an_empty_batch(hand_made: HandMade) -> None:
    """A read that frees places but finds no record gives zero rows, not None."""
    hand_made.put(records(3), flags=DISCARDED)
    with RingConsumer(hand_made.fd, PAGE) as consumer:
        assert read(consumer).shape == (0, 7)
        assert consumer.read() is None


def test_a_record_of_another_length_is_named_and_stays(hand_made: HandMade) -> None:
    """A wrong length raises RecordError with what was found, and consumes nothing."""
    hand_made.put(records(2))
    hand_made.put(records(1), length=48)
    with RingConsumer(hand_made.fd, PAGE) as consumer:
        with pytest.raises(RecordError, match=r"found: 48 bytes at position 128"):
            consumer.read()
        assert int(hand_made.consumer[0]) == 0


def test_a_wrong_length_behind_a_busy_record_is_not_looked_at(hand_made: HandMade) -> None:
    """What stands behind a busy record may not be a record yet."""
    hand_made.put(records(3))
    hand_made.set_header(1, 56 | BUSY)
    hand_made.set_header(2, 12345)
    with RingConsumer(hand_made.fd, PAGE) as consumer:
        assert len(read(consumer)) == 1


def test_a_read_is_bounded(hand_made: HandMade) -> None:
    """One call copies at most max_records; the next goes on behind them."""
    hand_made.put(records(10))
    with RingConsumer(hand_made.fd, PAGE) as consumer:
        assert np.array_equal(read(consumer, 4), records(4))
        assert np.array_equal(read(consumer, 4), records(10)[4:8])
        assert np.array_equal(read(consumer, 4), records(10)[8:])


def test_positions_beyond_32_bits_are_kept_whole(hand_made: HandMade) -> None:
    """A ring that has carried more than 4 GiB is read on without a break."""
    start = (1 << 40) + 5 * 64
    hand_made.consumer[0] = hand_made.producer[0] = start
    hand_made.put(records(SLOTS - 2))
    with RingConsumer(hand_made.fd, PAGE) as consumer:
        assert np.array_equal(read(consumer), records(SLOTS - 2))
        assert int(hand_made.consumer[0]) == start + (SLOTS - 2) * 64


def test_a_second_consumer_goes_on_where_the_first_stopped(hand_made: HandMade) -> None:
    """The position lives in the ring: a consumer opened later repeats nothing."""
    hand_made.put(records(4))
    with RingConsumer(hand_made.fd, PAGE) as first:
        read(first, 3)
    with RingConsumer(hand_made.fd, PAGE) as second:
        assert np.array_equal(read(second), records(4)[3:])


def calls_of_read(size: int) -> int:
    ring = HandMade(1 << 23)
    slots = ring.copies[:, :size]
    slots[:, :, 0] = 56
    slots[:, 7, 0] |= np.uint64(DISCARDED)
    ring.producer[0] = size * 64
    found: list[Words | None] = []
    with RingConsumer(ring.fd, ring.size) as consumer:
        calls = calls_of(lambda: found.append(consumer.read()))
    (words,) = found
    assert words is not None
    assert len(words) == size - 1
    os.close(ring.fd)
    return calls


def test_python_calls_do_not_depend_on_the_number_of_records() -> None:
    """Reading 100,000 records makes exactly as many calls as reading 1,000."""
    assert calls_of_read(1_000) == calls_of_read(100_000) < 100


# -- real rings -------------------------------------------------------------------


@pytest.mark.native
def test_records_cross_a_real_ring_around_its_end(producer_object: Path) -> None:
    """Rounds that do not divide the ring wrap around its end without a break or a change."""
    script = records(SLOTS - 5)
    with Producer(producer_object, ring_bytes=PAGE, script_lines=len(script)) as producer:
        producer.write(script)
        with RingConsumer(producer.ring_fd, PAGE) as consumer:
            for _ in range(50):
                assert producer.emit(0, len(script)) == (len(script), 0)
                assert np.array_equal(read(consumer), script)
            assert consumer.pending_bytes == 0


@pytest.mark.native
def test_a_full_ring_refuses_and_goes_on(producer_object: Path) -> None:
    """What finds no room is refused; after a read there is room again."""
    script = records(2 * SLOTS)
    with Producer(producer_object, ring_bytes=PAGE, script_lines=len(script)) as producer:
        producer.write(script)
        with RingConsumer(producer.ring_fd, PAGE) as consumer:
            emitted, refused = producer.emit(0, len(script))
            assert emitted + refused == len(script)
            assert refused >= SLOTS
            assert np.array_equal(read(consumer), script[:emitted])
            assert producer.emit(0, 10) == (10, 0)
            assert np.array_equal(read(consumer), script[:10])


@pytest.mark.native
def test_discarded_records_of_a_real_ring_are_dropped(producer_object: Path) -> None:
    """bpf_ringbuf_discard leaves no record behind."""
    script = records(30)
    discarded = (np.arange(30) % 3 == 1).astype(np.uint64)
    with Producer(producer_object, ring_bytes=PAGE, script_lines=30) as producer:
        producer.write(script, discarded=discarded)
        with RingConsumer(producer.ring_fd, PAGE) as consumer:
            producer.emit(0, 30)
            assert np.array_equal(read(consumer), script[discarded == 0])
            assert consumer.pending_bytes == 0


@pytest.mark.native
def test_a_foreign_record_of_a_real_ring_is_named(producer_object: Path) -> None:
    """A record of 40 bytes raises RecordError with its length."""
    with (
        Producer(producer_object, ring_bytes=PAGE) as producer,
        RingConsumer(producer.ring_fd, PAGE) as consumer,
    ):
        assert producer.run("emit_short") == 0
        with pytest.raises(RecordError, match="40 bytes"):
            consumer.read()


@pytest.mark.native
def test_two_producers_at_once_lose_and_mix_nothing(producer_object: Path) -> None:
    """Two CPUs fill the ring while it is read: every record arrives once, each CPU's in order."""
    count, ring_bytes = 200_000, 1 << 20
    script = records(2 * count)
    with Producer(producer_object, ring_bytes=ring_bytes, script_lines=2 * count) as producer:
        producer.write(script)
        cpus = sorted(os.sched_getaffinity(0))
        refused = [0, 0]

        def produce(which: int) -> None:
            os.sched_setaffinity(0, {cpus[which % len(cpus)]})
            # Short runs, so that the reader keeps up, most of the time.
            for begin in range(which * count, (which + 1) * count, 1000):
                refused[which] += producer.emit(begin, 1000)[1]

        threads = [threading.Thread(target=produce, args=(which,)) for which in range(2)]
        got = []
        with RingConsumer(producer.ring_fd, ring_bytes) as consumer:
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads) or consumer.pending_bytes:
                words = consumer.read()
                if words is not None:
                    got.append(words)
        arrived = np.concatenate(got)
    assert len(arrived) == 2 * count - sum(refused)
    place = arrived[:, 1] // np.uint64(7 << 8)
    assert np.array_equal(arrived, script[place])
    for which in range(2):
        own = place[(place >= which * count) & (place < (which + 1) * count)]
        assert len(own) == count - refused[which]
        assert (own[1:] > own[:-1]).all()


@pytest.mark.native
def test_the_descriptor_polls_readable_while_records_wait(producer_object: Path) -> None:
    """epoll on fileno() tells of records that wait, and of none after they are read."""
    with (
        Producer(producer_object, ring_bytes=PAGE) as producer,
        RingConsumer(producer.ring_fd, PAGE) as consumer,
        select.epoll() as poll,
    ):
        producer.write(records(1))
        poll.register(consumer.fileno(), select.EPOLLIN)
        assert poll.poll(0) == []
        producer.emit(0, 1)
        assert [fd for fd, _ in poll.poll(5)] == [consumer.fileno()]
        read(consumer)
        assert poll.poll(0) == []
