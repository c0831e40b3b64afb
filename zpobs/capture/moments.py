"""What stands beside the model in a snapshot, as JSON and back.

The model is fed by steps. What a session reads of the host besides (owners' own figures, the
account of probes and scans, add-ons and their histograms) hangs on snapshots, and is kept from
each that the recorder takes.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from zpobs.addons import AddOnView
from zpobs.errors import BadInputError
from zpobs.footing import Footing, Owned
from zpobs.latency import PoolLatency
from zpobs.model.objects import ObjectLedger
from zpobs.snapshot import OwnerFigures, PoolView, Snapshot


@dataclass(frozen=True, slots=True)
class ObjectsTold:
    """Since when objects are told, monotonic, what of them is not, and what was lost."""

    begin_ns: int
    no_programs: str
    partly: tuple[tuple[str, str], ...]
    losses: tuple[str, ...]

    def told_to(self, ledger: ObjectLedger) -> None:
        """Have a ledger know it."""
        ledger.begin(self.begin_ns, self.no_programs, self.partly)
        ledger.losses = self.losses


@dataclass(frozen=True, slots=True)
class Aside:
    """What stands beside the pools' own figures; ``owners`` and ``latency`` are by pool id.

    ``cgroups`` are paths by id, of those that pin zspages.
    """

    addons: tuple[AddOnView, ...]
    footing: Footing | None
    owned: Owned | None
    owners: Mapping[str, OwnerFigures]
    latency: Mapping[str, PoolLatency]
    cgroups: Mapping[str, str]
    objects: ObjectsTold | None

    @classmethod
    def of(cls, snapshot: Snapshot, ledger: ObjectLedger | None = None) -> Aside:
        """Return what a session's snapshot has of it."""
        pins = [pool.objects_told.pins for pool in snapshot.pools if pool.objects_told]
        paths = [each.paths for each in pins if each is not None]
        return cls(
            addons=snapshot.health.addons,
            footing=snapshot.footing,
            owned=snapshot.owned,
            owners={
                str(pool.id): pool.owner_figures
                for pool in snapshot.pools
                if pool.owner_figures is not None
            },
            latency={
                str(pool.id): pool.latency for pool in snapshot.pools if pool.latency is not None
            },
            cgroups={str(id_): path for each in paths for id_, path in each.items()},
            objects=None
            if ledger is None
            else ObjectsTold(ledger.begin_ns, ledger.no_programs, ledger.partly, ledger.losses),
        )

    def added_to(self, snapshot: Snapshot) -> Snapshot:
        """Return a model's snapshot with it."""
        paths = {int(id_): path for id_, path in self.cgroups.items()}
        pools = tuple(
            replace(
                with_paths(pool, paths),
                owner_figures=self.owners.get(str(pool.id)),
                latency=self.latency.get(str(pool.id)),
            )
            for pool in snapshot.pools
        )
        health = replace(snapshot.health, addons=(*snapshot.health.addons, *self.addons))
        return replace(snapshot, health=health, pools=pools, footing=self.footing, owned=self.owned)

    def to_json(self) -> dict[str, Any]:
        """Return it as a moment tells it."""
        plain: dict[str, Any] = _plain(self)
        return plain

    @classmethod
    def understood(cls, told: Mapping[str, Any]) -> Aside:
        """Return what a moment tells; raise BadInputError if that is none."""
        try:
            found: Aside = _made(cls, {field.name: told[field.name] for field in fields(cls)})
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise BadInputError("a moment tells nothing", found=str(error)) from error
        return found


def with_paths(pool: PoolView, paths: Mapping[int, str]) -> PoolView:
    """Return a pool with the paths of control groups that pin its zspages."""
    objects = pool.objects_told
    if objects is None or objects.pins is None:
        return pool
    return replace(pool, objects_told=replace(objects, pins=replace(objects.pins, paths=paths)))


def _plain(value: Any) -> Any:
    """Return frozen values as JSON: objects, lists, numbers, text."""
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    if isinstance(value, np.ndarray):
        # A table without rows has columns still, which a list of lists would not tell.
        flat: list[int] = value.reshape(-1).tolist()
        return flat if value.ndim == 1 else {"shape": list(value.shape), "cells": flat}
    return value


def _made(kind: Any, value: Any) -> Any:
    """Return a value of an annotated type out of JSON; raise TypeError if it cannot be one."""
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(
            **{
                field.name: _made(hints[field.name], value[field.name])
                for field in fields(kind)
                if field.name in value
            }
        )
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        (inner,) = (each for each in arguments if each is not type(None))
        return None if value is None else _made(inner, value)
    if origin is Literal and value in arguments:
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise TypeError(f"{value!r} is no list")
        kinds = [arguments[0]] * len(value) if arguments[1:] == (...,) else arguments
        return tuple(_made(*pair) for pair in zip(kinds, value, strict=True))
    if origin is Mapping:
        name_kind, each_kind = arguments
        return {_made(name_kind, name): _made(each_kind, each) for name, each in value.items()}
    return _array(value) if origin is np.ndarray else _scalar(kind, value)


def _array(value: Any) -> Any:
    cells, shape = (value["cells"], value["shape"]) if isinstance(value, dict) else (value, [-1])
    if not isinstance(cells, list):
        raise TypeError(f"{cells!r} is no list")
    array = np.array(cells, dtype=np.int64).reshape(shape)
    array.setflags(write=False)
    return array


def _scalar(kind: Any, value: Any) -> Any:
    if not isinstance(kind, type) or not isinstance(value, kind):
        raise TypeError(f"{value!r} is no {kind}")
    return value
