"""One size class of one pool looked at: its zspages alone, and their descriptors."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tests.native.device import NativeDevice
from zpobs.session import Session, open_session
from zpobs.snapshot import PoolView, Snapshot, ZspagesOf
from zpobs.wishes import Wishes

pytestmark = pytest.mark.native


@pytest.fixture
def session() -> Iterator[Session]:
    with open_session(Wishes(), attach=False) as opened:
        yield opened


def pool_of(snapshot: Snapshot, device: NativeDevice) -> PoolView:
    (pool,) = (each for each in snapshot.pools if each.name == device.name)
    return pool


def test_a_look_shows_what_the_whole_list_shows(device: NativeDevice, session: Session) -> None:
    """Every zspage of the class, with as many descriptors as pages and the same frames."""
    device.fill("mixed", 4000)
    pool = pool_of(session.snapshot(zspages=True), device)
    table = pool.zspage_list
    assert table is not None
    # A class of several pages, with several zspages.
    row = int(np.flatnonzero((pool.classes.pages_per_zspage > 1) & (pool.classes.zspages > 3))[0])
    index = int(pool.classes.index[row])
    look = session.look(pool.id, index)
    assert look is not None
    assert (look.pool, look.class_index) == (pool.id, index)
    assert look.dump.classes.index.tolist() == [index]
    own = table.take(np.flatnonzero(table.class_index == index))
    order = np.argsort(look.dump.zspages.address)
    assert look.dump.zspages.address[order].tolist() == own.address.tolist()
    assert look.dump.zspages.inuse[order].tolist() == own.inuse.tolist()
    descriptors = look.dump.descriptors
    assert sorted(descriptors.frame.tolist()) == sorted(own.frames.tolist())
    assert look.flags.names(int(descriptors.flags[0]))


def test_a_look_leaves_the_model_alone(device: NativeDevice, session: Session) -> None:
    """What a look saw is not in what probes and scans made."""
    device.fill("mixed", 1000)
    pool = pool_of(session.snapshot(), device)

    def known() -> object:
        return session._model.snapshot(time_ns=1, mono_ns=1, zspages=True).to_json()

    before = known()
    index = int(pool.classes.index[np.argmax(pool.classes.objects)])
    device.fill("mixed", 1000, first=1000)
    look = session.look(pool.id, index)
    assert look is not None
    assert len(look.dump.zspages.address)
    assert known() == before


def test_a_look_into_a_pool_that_is_gone(
    make_device: Callable[[], NativeDevice], session: Session
) -> None:
    """There is nothing to see, and nothing of the pool that is there now."""
    device = make_device()
    device.fill("mixed", 500)
    pool = pool_of(session.snapshot(), device)
    index = int(pool.classes.index[np.argmax(pool.classes.objects)])
    device.reset()
    assert session.look(pool.id, index) is None
    device.set_up("1G")
    device.fill("mixed", 500)
    assert session.look(pool.id, index) is None


def test_only_the_zspages_asked_for_are_listed(
    make_device: Callable[[], NativeDevice], session: Session
) -> None:
    """One pool's, or one class's: what the whole list says of them; all pools keep their sums."""
    first, second = make_device(), make_device()
    first.fill("mixed", 2000)
    second.fill("mixed", 2000, seed=2)
    whole = session.snapshot(zspages=True)
    pool = pool_of(whole, first)
    table = pool.zspage_list
    assert table is not None
    index = int(pool.classes.index[np.argmax(pool.classes.zspages)])
    for asked, rows in (
        (ZspagesOf(pool.id), np.arange(len(table.address))),
        (ZspagesOf(pool.id, index), np.flatnonzero(table.class_index == index)),
    ):
        some = session.snapshot(zspages=asked)
        assert [each.id for each in some.pools] == [each.id for each in whole.pools]
        listed = {each.id: each.zspage_list for each in some.pools if each.zspage_list is not None}
        assert set(listed) == {pool.id}
        expected = table.take(rows)
        assert len(expected.address) > 1
        assert listed[pool.id].address.tolist() == expected.address.tolist()
        assert listed[pool.id].frames.tolist() == expected.frames.tolist()
        assert pool_of(some, second).objects == pool_of(whole, second).objects
