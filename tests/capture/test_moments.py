"""What stands beside a model, as JSON and back."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest

from tests.capture.support import CGROUP, CGROUP_PATH, make_aside
from tests.factories import make_addon, make_latency, make_pool, make_snapshot
from tests.object_values import make_objects, make_pins
from zpobs.capture.moments import Aside
from zpobs.errors import BadInputError
from zpobs.model.objects import ObjectLedger
from zpobs.objects import Sampling


def same(one: Any, other: Any) -> bool:
    """Tell whether frozen values are equal, arrays and all."""
    if is_dataclass(one):
        return type(one) is type(other) and all(
            same(getattr(one, field.name), getattr(other, field.name)) for field in fields(one)
        )
    if isinstance(one, np.ndarray):
        return bool(one.dtype == other.dtype and np.array_equal(one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


FULL = make_aside({1: "zram0", 2: "zswap1"})


def through_json(aside: Aside) -> Aside:
    return Aside.understood(json.loads(json.dumps(aside.to_json())))


def test_every_field_comes_back() -> None:
    assert all(getattr(FULL, field.name) for field in fields(FULL))
    assert same(through_json(FULL), FULL)


@pytest.mark.parametrize("name", ["footing", "owned", "objects"])
def test_what_was_not_there_is_not(name: str) -> None:
    aside = replace(FULL, **{name: None})
    assert same(through_json(aside), aside)


def test_nothing_comes_back_as_nothing() -> None:
    empty = Aside((), None, None, {}, {}, {}, None)
    assert same(through_json(empty), empty)


def test_it_is_what_a_snapshot_has() -> None:
    """Taken from one and put on another, all of it is there."""
    pins = make_pins(paths={CGROUP: CGROUP_PATH})
    owner = FULL.owners["1"]
    pool = make_pool(
        1, owner_figures=owner, latency=make_latency(), objects_told=make_objects(pins=pins)
    )
    whole = make_snapshot(pool, footing=FULL.footing, owned=FULL.owned)
    whole = replace(whole, health=replace(whole.health, addons=(make_addon(),)))
    ledger = ObjectLedger(Sampling(1, 1))
    ledger.begin(7, "refused", (("zram", "why"),))
    ledger.losses = ("2 objects",)
    aside = through_json(Aside.of(whole, ledger))
    assert aside.cgroups == {str(CGROUP): CGROUP_PATH}
    assert aside.objects is not None
    other = ObjectLedger(Sampling(1, 1))
    aside.objects.told_to(other)
    told = (other.begin_ns, other.no_programs, other.partly, other.losses)
    assert told == (7, "refused", (("zram", "why"),), ("2 objects",))
    bare = replace(
        whole,
        footing=None,
        owned=None,
        health=replace(whole.health, addons=()),
        pools=(
            replace(
                pool,
                owner_figures=None,
                latency=None,
                objects_told=make_objects(pins=make_pins(paths={})),
            ),
        ),
    )
    assert same(aside.added_to(bare), whole)


def _paths(told: Any, at: tuple[Any, ...] = ()) -> Any:
    yield at
    for name, each in told.items() if isinstance(told, dict) else ():
        yield from _paths(each, (*at, name))


@pytest.mark.parametrize("path", [path for path in _paths(FULL.to_json()) if path], ids=str)
def test_what_makes_no_sense_is_refused(path: tuple[Any, ...]) -> None:
    """A value of another type anywhere is BadInputError, or stands where anything may."""
    told = FULL.to_json()
    place = told
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = {"what": 1.5} if not isinstance(place[path[-1]], dict) else 1.5
    with pytest.raises(BadInputError):
        Aside.understood(told)


@pytest.mark.parametrize("name", [field.name for field in fields(FULL)])
def test_what_is_missing_is_told(name: str) -> None:
    told = FULL.to_json()
    del told[name]
    with pytest.raises(BadInputError, match="tells nothing"):
        Aside.understood(told)
