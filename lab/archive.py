"""The Debian archive, through an apt configuration of the lab's own.

The addresses and the proxy settings are those of the machine's apt; its package lists, its status
and its sources are left alone. apt itself checks every signature and every hash.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lab.host import EXIT_USAGE, HostError, LabError, Progress, call, locked, need

GUEST_SUITE = "trixie"
MAIN_SUITES = ("bookworm", "trixie", "trixie-backports")
SECURITY_SUITES = ("trixie-security",)
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
MAX_AGE = 24 * 3600.0

_FORMAT = 1
_IMAGE = re.compile(r"linux-image-(\d+\.\d+\.\d+(?:-\d+)?(?:\+deb\d+(?:\.\d+)?)?)-amd64")
_RELATION = re.compile(r"([a-z0-9][a-z0-9.+-]*)(?::\w+)?\s*(?:\(\s*([<>=]+)\s*([^)\s]+)\s*\))?")


class UnknownKernelError(LabError):
    """The archive has no bootable kernel of that name."""

    status = EXIT_USAGE


@dataclass(frozen=True)
class Package:
    """One package of the archive's index."""

    name: str
    version: str
    depends: str = ""


@dataclass(frozen=True)
class Kernel:
    """One kernel of the archive and the packages that carry it."""

    release: str
    packages: list[str] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @property
    def series(self) -> str:
        """The major and minor number, such as 7.3."""
        return ".".join(self.release.split(".")[:2])

    @property
    def bootable(self) -> bool:
        """Whether everything a boot needs can be had."""
        return not self.missing

    @property
    def order(self) -> tuple[int, ...]:
        """A key that sorts kernels by age."""
        return tuple(int(number) for number in re.findall(r"\d+", self.release.rpartition("-")[0]))


def parse_index(text: str) -> Iterator[Package]:
    """Yield the linux and busybox packages of a package index."""
    for stanza in text.split("\n\n"):
        if not stanza.startswith(("Package: linux-", "Package: busybox-static\n")):
            continue
        fields = dict(re.findall(r"^(Package|Version|Depends): (.*)$", stanza, re.MULTILINE))
        if "Package" in fields and "Version" in fields:
            yield Package(fields["Package"], fields["Version"], fields.get("Depends", ""))


def _resolve(
    wanted: Iterable[Package],
    index: dict[str, Package],
    follow: tuple[str, ...],
    optional: tuple[str, ...] = (),
) -> tuple[list[str], list[str]]:
    """Follow the dependencies whose names begin so; return what is there and what is missing."""
    queue, have, missing = list(wanted), dict[str, str](), list[str]()
    while queue:
        package = queue.pop()
        if package.name in have:
            continue
        have[package.name] = package.version
        for relation in package.depends.split(","):
            match = _RELATION.match(relation.strip())
            if match is None or not match[1].startswith(follow + optional):
                continue
            found = index.get(match[1])
            if found is None or (match[2] == "=" and found.version != match[3]):
                if not match[1].startswith(optional or "-"):
                    missing.append(match[1])
            else:
                queue.append(found)
    return [f"{name}={version}" for name, version in sorted(have.items())], sorted(set(missing))


def kernels_of(packages: Iterable[Package]) -> list[Kernel]:
    """Make the list of kernels, newest first, out of a package index."""
    index = {package.name: package for package in packages}
    kernels = []
    for name, package in index.items():
        match = _IMAGE.fullmatch(name)
        if match is None:
            continue
        release = f"{match[1]}-amd64"
        parts = (f"linux-binary-{release}", f"linux-modules-{release}")
        # The list of built-in modules: of use where it is there, a kernel boots without.
        have, missing = _resolve([package], index, parts, (f"linux-base-{release}",))
        headers: list[str] = []
        if f"linux-headers-{release}" in index:
            # Not the compiler and not the C library they depend on: only the files are wanted.
            follow = (f"linux-headers-{match[1]}", "linux-kbuild-")
            headers, lacking = _resolve([index[f"linux-headers-{release}"]], index, follow)
            headers = [] if lacking else headers
        kernels.append(Kernel(release, have, headers, missing))
    return sorted(kernels, key=lambda kernel: kernel.order, reverse=True)


NEWEST = "newest"


def newest_of_series(kernels: Sequence[Kernel]) -> list[Kernel]:
    """Pick for each major.minor the newest kernel, a bootable one where there is any."""
    best: dict[str, Kernel] = {}
    for kernel in sorted(kernels, key=lambda each: (each.bootable, each.order)):
        best[kernel.series] = kernel
    return sorted(best.values(), key=lambda kernel: kernel.order, reverse=True)


def choose(kernels: Sequence[Kernel], wanted: str) -> Kernel:
    """Pick the newest bootable kernel called so: a major.minor, a version or a release.

    ``newest`` is the newest that has headers, without which bcc compiles nothing.
    """
    named = [
        kernel
        for kernel in kernels
        if wanted in (kernel.series, kernel.release, kernel.release.removesuffix("-amd64"))
        or (wanted == NEWEST and kernel.bootable and kernel.headers)
    ]
    bootable = [kernel for kernel in named if kernel.bootable]
    if bootable:
        return max(bootable, key=lambda kernel: kernel.order)
    there = ", ".join(kernel.series for kernel in newest_of_series(kernels) if kernel.bootable)
    reason = "is not in the archive"
    if named:
        lacking = max(named, key=lambda kernel: kernel.order).missing
        reason = f"cannot boot, the archive lacks {' and '.join(lacking)}"
    raise UnknownKernelError(f"kernel {wanted} {reason}; there are: {there or 'none'}")


def _bases(targets: str) -> tuple[str, str | None]:
    """Find the addresses of the archive and of its security updates among apt's own targets."""
    main: str | None = None
    security: str | None = None
    for row in targets.splitlines():
        uri, codename, release, label = row.split("|")
        secure = "-security" in codename + release or uri.rstrip("/").endswith("debian-security")
        if secure:
            security = security or uri
        elif label == "Debian" or uri.rstrip("/").endswith("/debian"):
            main = main or uri
    if main is None:
        raise HostError("apt on this machine knows no Debian archive; add one to its sources")
    return main, security


class Archive:
    """The archive as the lab sees it: a list of kernels, packages to download, a root to build."""

    def __init__(self, cache: Path, progress: Progress) -> None:
        self._cache = cache
        self._home = cache / "apt"
        self._listing = cache / "kernels.json"
        self._progress = progress

    def kernels(self, refresh: bool = False) -> list[Kernel]:
        """Return the kernels of the archive, from a list at most a day old if possible."""
        cached = self._read()
        if cached is not None and not refresh and time.time() - cached[0] < MAX_AGE:
            return cached[1]
        waiting = "waiting for another lab that reads the package lists"
        with locked(self._cache, "apt", lambda: self._progress.line(waiting)):
            again = self._read()
            if again is not None and (cached is None or again[0] > cached[0]):
                return again[1]
            try:
                with self._progress.step("reading the package lists"):
                    kernels = self._update()
            except HostError as error:
                if cached is None:
                    raise
                reason = str(error).splitlines()[0]
                self._progress.line(f"going on with the old package lists: {reason}")
                return cached[1]
        return kernels

    def kernel(self, release: str) -> Kernel:
        """Return the kernel of a release, without packages if the archive has it no more."""
        found = [kernel for kernel in self.kernels() if kernel.release == release]
        return found[0] if found else Kernel(release)

    def age(self) -> float:
        """Return how many seconds ago the list of kernels was read."""
        cached = self._read()
        return float("inf") if cached is None else time.time() - cached[0]

    def download(self, packages: Sequence[str], folder: Path) -> list[Path]:
        """Download packages (name or name=version) into a folder; apt checks them."""
        waiting = "waiting for another lab that downloads packages"
        with locked(self._cache, "apt", lambda: self._progress.line(waiting)):
            if not (self._home / "apt.conf").exists():
                self._update()
            apt = need("apt-get", "apt")
            call([apt, "-q", "download", *packages], folder=folder, env=self._environment())
        found = sorted(folder.glob("*.deb"))
        if len(found) != len(packages):
            raise HostError(f"apt brought {len(found)} of {len(packages)} packages")
        return found

    def bootstrap(self, packages: Sequence[str], excludes: Sequence[str], folder: Path) -> None:
        """Build a root of the guest's suite in a folder."""
        tool = need("mmdebstrap", "mmdebstrap")
        folder.parent.mkdir(parents=True, exist_ok=True)
        # mmdebstrap does not read this machine's apt.conf, but a proxy there is needed all the
        # same; it must not stay in the root, though.
        keep = re.compile(r"Acquire::(https?|Retries|ForceIPv[46]|Check-)")
        settings = call([need("apt-config", "apt"), "dump", "--no-empty"]).splitlines()
        options = folder.parent / f"{folder.name}.conf"
        options.write_text("".join(f"{row}\n" for row in settings if keep.match(row)))
        # What it mounts below the root must never be seen, nor be cleared away, out here.
        argv = [
            need("unshare", "util-linux"),
            "--mount",
            tool,
            "--quiet",
            "--variant=minbase",
            f"--include={','.join(packages)}",
            f"--aptopt={options}",
            '--customize-hook=rm -f "$1/etc/apt/apt.conf.d/99mmdebstrap"',
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in excludes),
            GUEST_SUITE,
            str(folder),
            "-",
        ]
        call(argv, stdin=self._source(self._addresses()[0], (GUEST_SUITE,)))

    def _read(self) -> tuple[float, list[Kernel]] | None:
        try:
            stored = json.loads(self._listing.read_text())
            if stored["format"] != _FORMAT:
                return None
            return float(stored["read"]), [Kernel(**row) for row in stored["kernels"]]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _environment(self) -> dict[str, str]:
        return {"APT_CONFIG": str(self._home / "apt.conf"), "LC_ALL": "C.UTF-8"}

    def _addresses(self) -> tuple[str, str | None]:
        apt = need("apt-get", "apt")
        shape = "$(REPO_URI)|$(CODENAME)|$(RELEASE)|$(LABEL)"
        return _bases(call([apt, "indextargets", "--format", shape, "Created-By: Packages"]))

    @staticmethod
    def _source(address: str, suites: Sequence[str]) -> str:
        signed = f" signed-by={KEYRING}" if KEYRING.exists() else ""
        return "".join(f"deb [arch=amd64{signed}] {address} {suite} main\n" for suite in suites)

    def _configure(self) -> None:
        """Write an apt configuration that touches nothing outside the cache."""
        main, security = self._addresses()
        sources = self._source(main, MAIN_SUITES)
        if security is not None:
            sources += self._source(security, SECURITY_SUITES)
        for name in ("lists/partial", "archives/partial", "empty"):
            (self._home / name).mkdir(parents=True, exist_ok=True)
        (self._home / "status").write_text("")
        (self._home / "sources.list").write_text(sources)
        settings = {
            "Dir::State": self._home,
            "Dir::State::lists": self._home / "lists",
            "Dir::State::status": self._home / "status",
            "Dir::Cache": self._home,
            "Dir::Cache::archives": self._home / "archives",
            "Dir::Etc::sourcelist": self._home / "sources.list",
            "Dir::Etc::sourceparts": self._home / "empty",
            "Dir::Etc::preferences": self._home / "empty/none",
            "Dir::Etc::preferencesparts": self._home / "empty",
            # The cache may be in a folder that only root can read.
            "APT::Sandbox::User": "root",
            "APT::Architecture": "amd64",
            "Acquire::Languages": "none",
        }
        rows = [f'{name} "{value}";\n' for name, value in settings.items()]
        rows.append('#clear APT::Architectures;\nAPT::Architectures:: "amd64";\n')
        (self._home / "apt.conf").write_text("".join(rows))

    def _update(self) -> list[Kernel]:
        """Read the package lists anew; the caller holds the lock."""
        self._configure()
        apt, environment = need("apt-get", "apt"), self._environment()
        # Without this apt goes on with old lists and reports success when the network is down.
        strict = ["-o", "APT::Update::Error-Mode=any"]
        try:
            call([apt, "-q", *strict, "update"], env=environment)
        except HostError as error:
            hint = "cannot read the archive's package lists; does apt-get update work here?"
            raise HostError(f"{hint} {error}") from None
        kernels = kernels_of(
            parse_index(call([need("apt-cache", "apt"), "dumpavail"], env=environment))
        )
        stored = {
            "format": _FORMAT,
            "read": time.time(),
            "kernels": [asdict(kernel) for kernel in kernels],
        }
        fresh = self._listing.with_suffix(".tmp")
        fresh.write_text(json.dumps(stored))
        fresh.replace(self._listing)
        return kernels
