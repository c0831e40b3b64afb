"""The images a guest boots from: one of the root, one per kernel with its modules and headers.

Both are plain ext4 without a journal: under emulation every byte the guest need not decompress
counts. They are built once, renamed into place when whole, and only ever read afterwards.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.archive import GUEST_SUITE, Archive, Kernel, UnknownKernelError, choose
from lab.host import HostError, Progress, call, locked, need, scratch

HERE = Path(__file__).resolve().parent
CHECKOUT = "/checkout"

ROOT_PACKAGES = (
    "python3",
    "python3-bpfcc",
    "python3-numpy",
    "python3-typer",
    "python3-psutil",
    "python3-pytest",
    "python3-hypothesis",
    "python3-prometheus-client",
    "python3-textual",
    "python3-zstandard",
    "bpftool",
    "iproute2",
    "kmod",
    "procps",
    "tmux",
)
ROOT_EXCLUDES = (
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
)
# What must be loaded before the root is there; a dependency of these comes by itself.
BOOT_MODULES = (
    "virtio_pci",
    "virtio_console",
    "virtio_blk",
    "ext4",
    "overlay",
    "9p",
    "9pnet_virtio",
)
# ext4 of older kernels asks for this one by an alias, which modules.dep does not tell.
BOOT_MODULES_IF_THERE = ("crc32c_generic",)
# Drivers of hardware no guest has: most of the bytes and of the build's time.
NO_SUCH_HARDWARE = """
sound net/bluetooth net/mac80211 net/wireless
drivers/accel drivers/ata drivers/bluetooth drivers/comedi drivers/edac drivers/extcon
drivers/firewire drivers/gnss drivers/gpu drivers/hid drivers/hwmon drivers/i2c drivers/iio
drivers/infiniband drivers/input drivers/isdn drivers/leds drivers/media drivers/memstick
drivers/message drivers/mfd drivers/mmc drivers/mtd drivers/net/can drivers/net/ethernet
drivers/net/fddi drivers/net/ieee802154 drivers/net/usb drivers/net/wan drivers/net/wireless
drivers/net/wwan drivers/nvme drivers/parport drivers/pcmcia drivers/pinctrl drivers/platform
drivers/power drivers/rtc drivers/scsi drivers/soundwire drivers/spi drivers/staging
drivers/thermal drivers/thunderbolt drivers/ufs drivers/usb drivers/video drivers/w1
"""
_RECIPE = 1
_HEADER_JUNK = ("Documentation", "drivers", "sound", "samples", "tools")
_WRAPPER = f"""#!/bin/sh
PYTHONPATH={CHECKOUT}${{PYTHONPATH:+:$PYTHONPATH}} exec python3 -m zpobs "$@"
"""


@dataclass(frozen=True)
class Images:
    """All the files one guest boots from."""

    release: str
    root: Path
    vmlinuz: Path
    kernel: Path
    initrd: Path
    churn: Path


def _key(*parts: object) -> str:
    text = json.dumps([_RECIPE, *parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def cpio(entries: Iterable[tuple[str, int, bytes]]) -> bytes:
    """Write a newc archive, padded so that another one may follow it.

    Each entry is a path, a mode with its file type, and contents; folders come before what is in
    them.
    """
    chunks: list[bytes] = []
    for inode, (name, mode, contents) in enumerate([*entries, ("TRAILER!!!", 0, b"")], start=1):
        path = os.fsencode(name) + b"\0"
        links = 2 if stat.S_ISDIR(mode) else 1
        numbers = (inode, mode, 0, 0, links, 0, len(contents), 0, 0, 0, 0, len(path), 0)
        head = b"070701" + b"".join(b"%08X" % number for number in numbers) + path
        for chunk in (head, contents):
            chunks += [chunk, bytes(-len(chunk) % 4)]
    archive = b"".join(chunks)
    return archive + bytes(-len(archive) % 512)


def boot_order(modules_dep: str, wanted: Sequence[str]) -> list[str]:
    """Return the paths of the wanted modules and all they need, in the order to load them.

    A module that modules.dep does not name is left out: it is built in, or not there at all.
    """
    needs: dict[str, tuple[str, list[str]]] = {}
    for row in modules_dep.splitlines():
        module, _, names = row.partition(":")
        needs[_module_name(module)] = (module, names.split())
    order: list[str] = []
    for name in wanted:
        path, after = needs.get(_module_name(name), ("", []))
        order += [each for each in (*reversed(after), path) if each and each not in order]
    return order


def _module_name(path: str) -> str:
    return path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")


def _merge(source: Path, target: Path) -> None:
    """Move a folder's contents into another folder that may have some of the same folders."""
    target.mkdir(parents=True, exist_ok=True)
    for entry in source.iterdir():
        there = target / entry.name
        if entry.is_dir() and not entry.is_symlink() and there.is_dir():
            _merge(entry, there)
        else:
            entry.rename(there)
    source.rmdir()


def _make_ext4(folder: Path, image: Path) -> None:
    """Make a read-only image of a folder, no larger than it has to be."""
    entries, size = 0, 0
    for place, folders, files in os.walk(folder):
        entries += len(folders) + len(files)
        size += 4096 * len(folders)
        for name in files:
            size += (Path(place, name).lstat().st_size // 4096 + 1) * 4096
    blocks = int(size * 1.06) // 4096 + entries // 8 + 4096
    features = "^has_journal,^metadata_csum,^resize_inode,^huge_file,^orphan_file"
    tool = need("mke2fs", "e2fsprogs")
    base = [tool, "-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-N", str(entries + 512)]
    try:
        call([*base, "-O", features, "-d", str(folder), str(image), str(blocks)])
    except HostError:
        # An older mke2fs does not know the last of the features.
        image.unlink(missing_ok=True)
        older = features.removesuffix(",^orphan_file")
        call([*base, "-O", older, "-d", str(folder), str(image), str(blocks)])


def _decompress_modules(tree: Path) -> None:
    """Decompress every module: the host does in seconds what the guest would do each time."""
    tools = {".xz": ("xz", "xz-utils", []), ".zst": ("zstd", "zstd", ["--rm"])}
    for suffix, (name, package, options) in tools.items():
        paths = [str(path) for path in tree.rglob(f"*.ko{suffix}")]
        if paths:
            spread = [need("xargs", "findutils"), "-0", "-n", "300", "-P", str(os.cpu_count() or 1)]
            argv = [*spread, need(name, package), "-d", "-q", *options, "--"]
            call(argv, stdin="\0".join(paths))


class Builder:
    """Builds what is not in the cache yet."""

    def __init__(self, cache: Path, archive: Archive, progress: Progress) -> None:
        self._cache = cache
        self._archive = archive
        self._progress = progress

    def images(self, wanted: str, refresh: bool = False) -> Images:
        """Return the images for a kernel called so, building what is missing."""
        kernel = self._choose(wanted, refresh)
        churn = self._churn()
        root = self._root()
        try:
            folder = self._kernel(kernel, root)
        except HostError as error:
            older = [each for each in self._matching(wanted) if self.built(each)]
            if not older:
                raise
            kernel = max(older, key=lambda each: each.order)
            folder = self._kernel_folder(kernel)
            reason = str(error).splitlines()[0]
            self._progress.line(f"going on with {kernel.release} of the cache: {reason}")
        return Images(
            release=kernel.release,
            root=root / "root.ext4",
            vmlinuz=folder / "vmlinuz",
            kernel=folder / "kernel.ext4",
            initrd=folder / "initrd.cpio",
            churn=churn,
        )

    def built(self, kernel: Kernel) -> bool:
        """Whether a kernel's image is in the cache."""
        return self._kernel_folder(kernel).is_dir()

    def _choose(self, wanted: str, refresh: bool) -> Kernel:
        try:
            return choose(self._archive.kernels(refresh), wanted)
        except UnknownKernelError:
            # The list may be older than the kernel.
            if self._archive.age() < 60:
                raise
            return choose(self._archive.kernels(refresh=True), wanted)

    def _matching(self, wanted: str) -> Iterator[Kernel]:
        for kernel in self._archive.kernels():
            try:
                yield choose([kernel], wanted)
            except UnknownKernelError:
                continue

    def _kernel_folder(self, kernel: Kernel) -> Path:
        recipe = (BOOT_MODULES, BOOT_MODULES_IF_THERE, NO_SUCH_HARDWARE, _HEADER_JUNK)
        key = _key(kernel.packages, kernel.headers, recipe)
        return self._cache / f"kernel-{kernel.release}-{key}"

    def _waiting(self, what: str) -> None:
        self._progress.line(f"waiting for another lab that builds {what}")

    def _root(self) -> Path:
        folder = self._cache / f"root-{_key(ROOT_PACKAGES, ROOT_EXCLUDES, _WRAPPER)}"
        if folder.is_dir():
            return folder
        with locked(self._cache, "root", lambda: self._waiting("the root")):
            if folder.is_dir():
                return folder
            _need_root()
            with scratch(self._cache, "root") as place:
                with self._progress.step("building the guest's root (Debian packages)"):
                    self._archive.bootstrap(ROOT_PACKAGES, ROOT_EXCLUDES, place / "tree")
                with self._progress.step("making the image of the root"):
                    (place / "done").mkdir()
                    self._finish_root(place / "tree")
                    _keep_depmod(place / "tree", place / "done/depmod")
                    _make_ext4(place / "tree", place / "done/root.ext4")
                (place / "done").rename(folder)
        return folder

    @staticmethod
    def _finish_root(tree: Path) -> None:
        for name in (CHECKOUT.strip("/"), "mnt/share"):
            (tree / name).mkdir(parents=True, exist_ok=True)
        wrapper = tree / "usr/local/bin/zpobs"
        wrapper.write_text(_WRAPPER)
        wrapper.chmod(0o755)
        (tree / "etc/hostname").write_text("lab\n")
        (tree / "etc/hosts").write_text("127.0.0.1 localhost lab\n::1 localhost\n")
        (tree / "etc/resolv.conf").unlink(missing_ok=True)
        shutil.rmtree(tree / "var/lib/apt/lists", ignore_errors=True)

    def _kernel(self, kernel: Kernel, root: Path) -> Path:
        folder = self._kernel_folder(kernel)
        if folder.is_dir():
            return folder
        name = f"kernel-{kernel.release}"
        with locked(self._cache, name, lambda: self._waiting(kernel.release)):
            if folder.is_dir():
                return folder
            _need_root()
            with scratch(self._cache, name) as place:
                self._build_kernel(kernel, root, place)
                (place / "done").rename(folder)
        return folder

    def _build_kernel(self, kernel: Kernel, root: Path, place: Path) -> None:
        debs, tree, done = (place / name for name in ("debs", "tree", "done"))
        for folder in (debs, tree, done):
            folder.mkdir()
        wanted = [*kernel.packages, *kernel.headers, f"busybox-static/{GUEST_SUITE}"]
        with self._progress.step(f"downloading {kernel.release} ({len(wanted)} packages)"):
            paths = self._archive.download(wanted, debs)
        with self._progress.step("unpacking modules and headers"):
            busybox = self._unpack(paths, tree, place)
            modules = tree / "usr/lib/modules" / kernel.release
            self._take_vmlinuz(kernel, tree, done / "vmlinuz")
            for name in NO_SUCH_HARDWARE.split():
                shutil.rmtree(modules / "kernel" / name, ignore_errors=True)
            _trim_headers(tree)
            _decompress_modules(modules)
        with self._progress.step("making the image of the kernel"):
            _run_depmod(root / "depmod", tree, kernel.release)
            (done / "initrd.cpio").write_bytes(_base_initrd(modules, busybox))
            _make_ext4(tree, done / "kernel.ext4")

    @staticmethod
    def _unpack(paths: Sequence[Path], tree: Path, place: Path) -> bytes:
        """Unpack the packages of a kernel; return the busybox that came with them."""
        tool = need("dpkg-deb", "dpkg")
        for path in paths:
            target = place / "busybox" if path.name.startswith("busybox") else tree
            call([tool, "-x", str(path), str(target)])
            path.unlink()
        if (tree / "lib").is_dir():
            _merge(tree / "lib", tree / "usr/lib")
        shutil.rmtree(tree / "usr/share", ignore_errors=True)
        for busybox in (place / "busybox/usr/bin/busybox", place / "busybox/bin/busybox"):
            if busybox.is_file():
                return busybox.read_bytes()
        raise HostError("the package busybox-static has no busybox")

    @staticmethod
    def _take_vmlinuz(kernel: Kernel, tree: Path, target: Path) -> None:
        release = kernel.release
        for name in (f"boot/vmlinuz-{release}", f"usr/lib/modules/{release}/vmlinuz"):
            if (tree / name).is_file():
                (tree / name).rename(target)
                shutil.rmtree(tree / "boot", ignore_errors=True)
                return
        raise HostError(f"the packages of {release} have no vmlinuz")

    def _churn(self) -> Path:
        """Compile the page writer for the guest; its source is the key."""
        source = HERE / "churn.c"
        digest = hashlib.sha256(source.read_bytes()).hexdigest()[:12]
        binary = self._cache / f"churn-{digest}"
        if binary.exists():
            return binary
        with locked(self._cache, "churn", lambda: self._waiting("churn")):
            if not binary.exists():
                with scratch(self._cache, "churn") as place:
                    flags = ["-std=gnu11", "-O2", "-static", "-Wall", "-Wextra"]
                    compiler = need("cc", "gcc libc6-dev")
                    call([compiler, *flags, "-o", str(place / "churn"), str(source)])
                    (place / "churn").rename(binary)
        return binary


def _need_root() -> None:
    if os.geteuid() != 0:
        raise HostError(
            "building a guest's images needs root (owners of files, mmdebstrap) and this is user "
            f"{os.geteuid()}; run it once with sudo -E, later runs do without"
        )


def _keep_depmod(tree: Path, folder: Path) -> None:
    """Keep the root's depmod and its libraries: many hosts have none, and no two are alike."""
    folder.mkdir()
    libraries = tree / "usr/lib/x86_64-linux-gnu"
    loader = libraries / "ld-linux-x86-64.so.2"
    program = tree / "usr/bin/kmod"
    listed = call([str(loader), "--library-path", str(libraries), "--list", str(program)])
    shutil.copy(program, folder / "kmod")
    shutil.copy(loader, folder / "loader")
    for row in listed.splitlines():
        name = row.split()[0]
        if "/" not in name and (libraries / name).is_file():
            shutil.copy(libraries / name, folder / name)


def _run_depmod(folder: Path, tree: Path, release: str) -> None:
    # depmod looks for lib/modules below the folder it is told, and goes by its own name.
    (tree / "lib").symlink_to("usr/lib")
    loader = [str(folder / "loader"), "--library-path", str(folder), "--argv0", "depmod"]
    call([*loader, str(folder / "kmod"), "-b", str(tree), release])
    (tree / "lib").unlink()


def _trim_headers(tree: Path) -> None:
    """Leave out what no program compiled against the headers of this machine includes."""
    for source in (tree / "usr/src").glob("linux-headers-*"):
        for name in _HEADER_JUNK:
            if not (source / name).is_symlink():
                shutil.rmtree(source / name, ignore_errors=True)
        if (source / "arch").is_dir():
            for arch in (source / "arch").iterdir():
                if arch.is_dir() and arch.name != "x86":
                    shutil.rmtree(arch)


def _base_initrd(modules: Path, busybox: bytes) -> bytes:
    """Make the part of the initrd that all runs of a kernel share."""
    wanted = (*BOOT_MODULES_IF_THERE, *BOOT_MODULES)
    order = boot_order((modules / "modules.dep").read_text(), wanted)
    builtin = modules / "modules.builtin"
    if builtin.exists():
        there = {_module_name(path) for path in (*order, *builtin.read_text().split())}
        lacking = [name for name in BOOT_MODULES if name not in there]
        if lacking:
            raise HostError(f"{modules.name} has no module {', '.join(lacking)}")
    folder, program = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o755
    entries = [(name, folder, b"") for name in ("bin", "dev", "lab", "modules", "proc", "sys")]
    entries += [("bin/busybox", program, busybox)]
    for path in order:
        name = Path(path).name
        entries.append((f"modules/{name}", stat.S_IFREG | 0o644, (modules / path).read_bytes()))
    listing = "".join(f"{Path(path).name}\n" for path in order)
    entries.append(("modules/order", stat.S_IFREG | 0o644, listing.encode()))
    return cpio(entries)
