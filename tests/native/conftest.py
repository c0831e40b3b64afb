"""Pools of this very kernel: zram devices of our own, a scanner, and a witness."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.native.device import NativeDevice
from tests.native_memory import NativeWitness, compile_peek
from tests.ring_producer import why_not


@pytest.fixture(scope="session", autouse=True)
def _native() -> None:
    lacking = why_not()
    if lacking:
        pytest.skip(lacking)


@pytest.fixture
def make_device() -> Iterator[Callable[[str], NativeDevice]]:
    """Return a maker of devices, which are all removed at the end."""
    made: list[NativeDevice] = []

    def make(disksize: str = "2G") -> NativeDevice:
        made.append(NativeDevice(disksize))
        return made[-1]

    yield make
    for device in made:
        device.remove()


@pytest.fixture
def device(make_device: Callable[[], NativeDevice]) -> NativeDevice:
    """Return an empty device."""
    return make_device()


@pytest.fixture(scope="session")
def native_witness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NativeWitness]:
    """Return the independent walker."""
    witness = NativeWitness(compile_peek(tmp_path_factory.mktemp("peek")))
    yield witness
    witness.close()
