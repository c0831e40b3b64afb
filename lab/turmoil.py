"""Everything that moves descriptors, at once, seeded, with books kept of what was done.

Several zram devices are written, overwritten, discarded and read by several processes each, on
disjoint pages, so that allocations and frees of one pool come from several CPUs. Beside them two
processes have less memory than they use, so that zswap stores, loads, drops and writes back, in two
pools of its own. Meanwhile pools are compacted, by the driver's file and by their shrinkers, memory
blocks go offline and come back, and one more device is reset and set up again and again.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from lab.witness import Witness
from lab.workload import PAGE_BYTES, Churn, ZramDevice, free_movable_memory, move_pages
from lab.zswap import Zswap, ZswapFigures, ZswapPressure, writes_back, zswap_figures

# Contents of a page: any size class, huge ones, and same-filled ones.
KINDS = "zero:4,same:4,text:8,any:72,random:12"
MIX = "44:16:26:2:12"
_DISKSIZE = "1G"
_DROP_CACHES = Path("/proc/sys/vm/drop_caches")
# zstd alone makes objects small enough for the smallest size class.
_ALGORITHMS = ("zstd", "lzo-rle", "lz4")
# Of all operations, in hundredths: on the devices that stay, in zswap, on the one reborn.
_SHARES = (66, 24, 10)
_LIVES = 5
# Of memory that a process needs for itself as well.
_PRESSED_PAGES_MIN = 1600
_PRESSED_OPERATIONS_MIN = 4000
_PRESSED_TRIES = 4
_VMSTAT = Path("/proc/vmstat")
_TELL_S = 15.0
# Of the operations on a range of a device, this share is about how many of its pages are used.
_PAGES_SHARE = 0.3


@dataclass(frozen=True, slots=True)
class Size:
    """How much is done: operations in all, zram devices that stay, processes for each."""

    operations: int = 200_000
    seed: int = 1
    mix: str = MIX
    kinds: str = KINDS
    devices: int = 3
    writers: int = 2

    def part(self, share: float, salt: int) -> Size:
        """Return a share of the operations, with a seed of its own."""
        return replace(
            self, operations=round(self.operations * share), seed=self.seed * 1_000 + salt
        )


class Books:
    """What was done on each zram device since its pool was made, summed over its processes."""

    def __init__(self) -> None:
        self.made: dict[str, Counter[str]] = {}
        self._life: Counter[str] = Counter()

    def enter(self, device: ZramDevice, made: Mapping[str, int]) -> None:
        """Add what one process did."""
        self.made.setdefault(device.name, Counter()).update(made)

    def forget(self, device: ZramDevice) -> None:
        """Begin anew: the device has a new pool."""
        self.made.pop(device.name, None)
        self._life[device.name] += 1

    def since(self, before: Books) -> Books:
        """Return the same without what was done before; what lives stays as it is."""
        later = Books()
        for name, made in self.made.items():
            same = self._life[name] == before._life[name]
            earlier = before.made.get(name, Counter()) if same else Counter()
            later.made[name] = Counter({key: made[key] - earlier[key] for key in made})
            later.made[name]["live_objects"] = made["live_objects"]
        return later

    def copy(self) -> Books:
        """Return the books as they are now."""
        other = Books()
        other.made = {name: Counter(made) for name, made in self.made.items()}
        other._life = Counter(self._life)
        return other


class Turmoil:
    """Devices, zswap and the processes on them; :meth:`run` may be called more than once."""

    def __init__(self, size: Size, say: Callable[[str], None]) -> None:
        self._size = size
        self._say = say
        self._witness = Witness()
        self._first_page = 0
        self._pressures: list[ZswapPressure] = []
        self.books = Books()
        self._counting = threading.Lock()
        self.operations = 0
        self.lives = 0
        free_movable_memory()
        self._zswap_before = zswap_figures()
        self.devices = [_device(number) for number in range(size.devices)]
        self.restless = _device(size.devices)
        self.reborn = _device(size.devices + 1)
        self._migrated_before = _pages_migrated()
        for device in self.zram:
            self.books.enter(device, {"zs_malloc": 0, "zs_free": 0, "live_objects": 0})
        self._zswap = Zswap()

    @property
    def compacted(self) -> list[ZramDevice]:
        """The devices that are compacted by their file; the first is left to the shrinker."""
        return self.devices[1:] or self.devices

    @property
    def zram(self) -> list[ZramDevice]:
        """All devices: those that stay, that of the slow writer, and the one that is reborn."""
        return [*self.devices, self.restless, self.reborn]

    def zswap_used(self) -> ZswapFigures:
        """Return what zswap did since this turmoil began."""
        return zswap_figures().since(self._zswap_before)

    def pages_migrated(self) -> int:
        """Return how many pages of any kind the kernel moved since this turmoil began."""
        return _pages_migrated() - self._migrated_before

    def run(self, share: float, *, salt: int) -> None:
        """Do a share of all operations, everything at once, and wait until all is at rest.

        Pages that were written by an earlier call stay as they are.
        """
        size = self._size.part(share, salt)
        # So much more that rounding makes it no less than what was asked for.
        zram, zswap, reborn = (size.operations * percent // 100 + 20 for percent in _SHARES)
        self._say(f"{size.operations} operations, seed {size.seed}")
        churns = self._write(size, zram)
        with self._meanwhile(Random(size.seed), lambda: self._be_reborn(size, reborn)):
            self._press(size, zswap)
            for device, churn in churns:
                self._enter(device, churn.finish())
        _shrink()
        for device in self.compacted:
            device.compact()

    def write_slowly(self, rate: int) -> Churn:
        """Work on a device of its own, so many operations a second, until :meth:`stop`."""
        return Churn(
            self.restless,
            operations=rate * 3600,
            seed=self._size.seed + 77,
            pages=rate * 10,
            mix=self._size.mix,
            kinds=self._size.kinds,
            rate=rate,
        )

    def stop(self, churn: Churn) -> None:
        """End what :meth:`write_slowly` began."""
        self._enter(self.restless, churn.stop())

    def _enter(self, device: ZramDevice, made: Mapping[str, int]) -> None:
        self.books.enter(device, made)
        self._count(made)

    def _count(self, made: Mapping[str, int]) -> None:
        with self._counting:
            self.operations += made["operations"]

    def _write(self, size: Size, operations: int) -> list[tuple[ZramDevice, Churn]]:
        each = max(operations // (size.devices * size.writers), 1)
        pages = max(int(each * _PAGES_SHARE), 1)
        churns = []
        for writer in range(size.writers):
            for number, device in enumerate(self.devices):
                churn = Churn(
                    device,
                    operations=each,
                    seed=size.seed * 100 + writer * size.devices + number,
                    first=self._first_page + writer * pages,
                    pages=pages,
                    mix=size.mix,
                    kinds=size.kinds,
                )
                churns.append((device, churn))
        self._first_page += size.writers * pages
        return churns

    def _press(self, size: Size, operations: int) -> None:
        """Press two processes into zswap, one after the other, each into a pool of its own.

        The first keeps what it stored: zswap destroys a pool that it has left as soon as nothing
        is stored there, and with it goes what was counted of it. The second has less of zswap, so
        that pages are written back to the device; each page that finds it full takes one that was
        stored long ago a step nearer to that, so it is made to last until one gets there.
        """
        each = max(operations // 2, _PRESSED_OPERATIONS_MIN)
        self._press_one(size, 0, each, zswap_max=max(each * 350, 1 << 20))
        for number in range(1, _PRESSED_TRIES + 1):
            self._press_one(size, number, each, zswap_max=max(each * 60 >> number, 1 << 16))
            if not writes_back() or self.zswap_used().writebacks:
                return

    def _press_one(self, size: Size, number: int, operations: int, *, zswap_max: int) -> None:
        self._zswap.new_pool()
        pressure = ZswapPressure(
            f"turmoil-{size.seed}-{number}",
            pages=max(operations * 2 // 5, _PRESSED_PAGES_MIN),
            operations=operations,
            seed=size.seed + number,
            memory_high=max(operations * 600, 2 << 20),
            zswap_max=zswap_max,
            mix=size.mix,
            kinds=size.kinds,
        )
        self._pressures.append(pressure)
        self._count(pressure.rest())

    def _be_reborn(self, size: Size, operations: int) -> None:
        """Destroy and make one device's pool again and again; the last stays."""
        for life in range(_LIVES):
            self.reborn.reset()
            self.reborn.set_up(_DISKSIZE)
            self.books.forget(self.reborn)
            churn = Churn(
                self.reborn,
                operations=max(operations // _LIVES, 1),
                seed=size.seed + life,
                pages=max(int(operations / _LIVES * _PAGES_SHARE), 1),
                mix=size.mix,
                kinds=size.kinds,
            )
            self._enter(self.reborn, churn.finish())
            self.lives += 1

    @contextlib.contextmanager
    def _meanwhile(self, random: Random, reborn: Callable[[], None]) -> Iterator[None]:
        """Compact and move pages, and let a pool be reborn, until all of it and the body end."""
        over = threading.Event()
        failed: list[BaseException] = []

        def worker(action: Callable[[], None], pause_s: float | None) -> threading.Thread:
            def work() -> None:
                try:
                    action()
                    while pause_s is not None and not over.wait(pause_s):
                        action()
                except BaseException as error:  # told by the thread that waits
                    failed.append(error)

            thread = threading.Thread(target=work)
            thread.start()
            return thread

        again = [
            worker(lambda: random.choice(self.compacted).compact(), 0.3),
            worker(_shrink, 0.7),
            worker(self._move_pages, 2.0),
            worker(self._tell, _TELL_S),
        ]
        lives = worker(reborn, None)
        try:
            yield
            lives.join()
        finally:
            over.set()
            for thread in again:
                thread.join()
        if failed:
            raise failed[0]

    def _tell(self) -> None:
        """Say how far it is: what is stored, for operations are counted when all are made."""
        pages = sum(device.mm_stat()[0] for device in self.devices) // PAGE_BYTES
        self._say(f"{pages} pages in zram, {zswap_figures().stored} in zswap")

    def _move_pages(self) -> None:
        """Take blocks with pages of a device offline; where they lie may change under our eyes."""
        for device in self.devices:
            # A walk of a pool in use is good for its frames alone, and may find nothing at all.
            with contextlib.suppress(LookupError, OSError):
                move_pages(self._witness.walk(self._witness.zram_pool(device.name)))

    def close(self) -> None:
        """End the processes and remove the devices; zswap keeps one empty pool."""
        for pressure in self._pressures:
            pressure.end()
        self._zswap.new_pool()
        self._zswap.close()
        for device in self.zram:
            device.remove()


def _pages_migrated() -> int:
    lines = (line.split() for line in _VMSTAT.read_text().splitlines())
    return next(int(count) for name, count in lines if name == "pgmigrate_success")


def _shrink() -> None:
    """Let all shrinkers work, zsmalloc's among them."""
    _DROP_CACHES.write_text("2")


def _device(number: int) -> ZramDevice:
    return ZramDevice(_DISKSIZE, algorithms=_ALGORITHMS[number % len(_ALGORITHMS) :])
