"""The bcc loader: compiles ``bpf/probes.bpf.c`` on this host, with this kernel's headers.

bcc has no BTF relocation, so every place in a kernel structure goes in as a
-D constant. Nothing but this module knows bcc.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from zpobs.bpf_files import bpf_text
from zpobs.errors import EnvironmentLacksError
from zpobs.host import probes_hint
from zpobs.kernel.hooks import Hook, all_hooks
from zpobs.kernel.plan import AttachForm, AttachWish, ProbePlan
from zpobs.loaders import MAPS, Attached, ProbesRefusedError, ring_too_large
from zpobs.loaders.verifier import refusal
from zpobs.shortage import check_files, raise_shortage

_NO_MEMORY = os.strerror(errno.ENOMEM)
_SOURCES = ("zs_wire.h", "dialect_bcc.h", "zs_probe.h", "probes.bpf.c")


class BccLoader:
    """Compiles, loads and attaches with bcc."""

    def attach(
        self,
        plan: ProbePlan,
        *,
        wish: AttachWish,
        ring_bytes: int,
        prepare: Callable[[Mapping[str, int]], None],
    ) -> Attached:
        """Attach every hook of the plan; see :class:`zpobs.loaders.Loader`."""
        check_files()
        bpf_class = _import_bcc()
        check_headers(plan.kernel.release)
        failures: dict[Hook, str] = {}
        candidates = plan.forms(wish)
        for form in candidates:
            module = _compile(bpf_class, plan, form, ring_bytes)
            map_fds = {name: module[name.encode()].map_fd for name in MAPS}
            prepare(map_fds)
            program_fds, failures = _attach_all(module, bpf_class, plan, form)
            if program_fds and (not failures or form == candidates[-1]):
                return Attached(
                    form=form,
                    ring_bytes=ring_bytes,
                    map_fds=map_fds,
                    program_fds=program_fds,
                    failed=failures,
                    close=module.cleanup,
                )
            module.cleanup()
        raise ProbesRefusedError(
            "no probe could be attached",
            found=next(iter(failures.values()), "no hook in the plan"),
            hint=probes_hint(),
        )


def is_there() -> bool:
    """Tell whether this Python has a bcc that works: it needs libraries of its own."""
    try:
        _import_bcc()
    except EnvironmentLacksError:
        return False
    return True


def check_bcc() -> str:
    """Return bcc's version; raise EnvironmentLacksError if this Python has none that works."""
    _import_bcc()
    return str(sys.modules["bcc"].__version__)


def _import_bcc() -> Any:
    """Return bcc's BPF class with its attaching by name prefix switched off."""
    try:
        from bcc import BPF  # noqa: PLC0415 - only a host that uses bcc has it
    except (ImportError, OSError) as error:
        raise EnvironmentLacksError(
            "the bcc loader needs the Python package bcc",
            found=f"{error} (Python at {sys.executable})",
            hint="apt install python3-bpfcc, and a Python that sees Debian's packages",
        ) from error

    class Module(BPF):  # type: ignore[misc]
        def _trace_autoload(self) -> None:
            """Attach nothing unasked, so that a hook that is missing is reported."""

    return Module


def check_headers(release: str) -> Path:
    """Return where this kernel's headers are; raise EnvironmentLacksError if they are not there."""
    named = os.environ.get("BCC_KERNEL_SOURCE")
    places = (
        [Path(named)]
        if named
        else [
            Path(f"/lib/modules/{release}/build/include"),
            Path("/sys/kernel/kheaders.tar.xz"),
        ]
    )
    there = next((place for place in places if place.exists()), None)
    if there is None:
        raise EnvironmentLacksError(
            "the bcc loader needs the kernel's headers",
            found=f"none at {' or '.join(map(str, places))}",
            hint=f"apt install linux-headers-{release}",
        )
    return there


def _compile(bpf_class: Any, plan: ProbePlan, form: AttachForm, ring_bytes: int) -> Any:
    # Absolute line numbers are lost in one text; name each part for messages.
    text = "\n".join(f'#line 1 "{name}"\n' + bpf_text(name) for name in _SOURCES)
    with _diagnostics() as log:
        try:
            return bpf_class(text=text.encode(), cflags=_flags(plan, form, ring_bytes))
        except Exception as error:  # bcc raises bare Exception
            if any("zs_events" in line and _NO_MEMORY in line for line in _lines(log)):
                raise ring_too_large(ring_bytes) from error
            raise EnvironmentLacksError(
                "bcc cannot compile the probes",
                found=_first_error(log) or str(error),
                hint=f"headers that match the running kernel; whole log in {_keep(log)}",
            ) from error


def _flags(plan: ProbePlan, form: AttachForm, ring_bytes: int) -> list[str]:
    flags = [f"-D{name}={value}" for name, value in plan.places.items()]
    forms = {hook.function: "ABSENT" for hook in all_hooks()}
    forms |= {hook.function: form.upper() for hook in plan.hooks}
    flags += [f"-DZS_FORM_{function}={name}" for function, name in forms.items()]
    flags.append(f"-DZS_VMEMMAP_BASE={plan.vmemmap_base or 0:#x}ULL")
    flags.append(f"-DZS_OBJECT={plan.btf_object}")
    flags.append(f"-DZS_BIRTHS_ON_INSERT={plan.births_on_insert:d}")
    flags.append(f"-DZS_RING_PAGES={ring_bytes // plan.kernel.page_size}")
    flags.append(f"-DZS_RING_BYTES={ring_bytes}ULL")
    flags += ["-Wno-unused-function", "-Wno-macro-redefined", "-Wno-duplicate-decl-specifier"]
    return flags


def _attach_all(
    module: Any, bpf_class: Any, plan: ProbePlan, form: AttachForm
) -> tuple[dict[str, int], dict[Hook, str]]:
    """Attach hook by hook; return program descriptors by name, and refusals."""
    fds: dict[str, int] = {}
    failures: dict[Hook, str] = {}
    for hook in plan.hooks:
        with _diagnostics() as log:
            try:
                for moment in hook.moments:
                    if form == "fentry":
                        name = f"{plan.btf_object}__{hook.function}"
                        program = _attach_fentry(module, bpf_class, name, moment)
                        fds[f"{hook.function}/{moment}"] = program
                    else:
                        fds.update(_attach_kprobe(module, bpf_class, hook.function, moment))
            except Exception as error:  # bcc raises bare Exception
                raise_shortage(error)
                told = refusal(hook.function, log.read_text(errors="replace"))
                failures[hook] = told or f"{hook.function}: {error}"
    return fds, failures


def _attach_fentry(module: Any, bpf_class: Any, target: str, moment: str) -> int:
    """Attach to OBJECT__FUNCTION, the object being the one whose BTF has the function."""
    prefix = "kfunc__" if moment == "entry" else "kretfunc__"
    name = (prefix + target).encode()
    loaded = module.load_func(name, bpf_class.TRACING)
    attach = module.attach_kfunc if moment == "entry" else module.attach_kretfunc
    attach(fn_name=name)
    return int(loaded.fd)


def _attach_kprobe(module: Any, bpf_class: Any, function: str, moment: str) -> dict[str, int]:
    event = function.encode()
    if moment == "entry":
        name = b"entry__" + event
        loaded = module.load_func(name, bpf_class.KPROBE)
        module.attach_kprobe(event=event, fn_name=name)
        return {f"{function}/entry": loaded.fd}
    returns = module.load_func(b"return__" + event, bpf_class.KPROBE)
    calls = module.load_func(b"call__" + event, bpf_class.KPROBE)
    # The return first: an entry seen alone would be a call that never returns.
    module.attach_kretprobe(event=event, fn_name=b"return__" + event)
    module.attach_kprobe(event=event, fn_name=b"call__" + event)
    return {f"{function}/call": calls.fd, f"{function}/return": returns.fd}


@contextlib.contextmanager
def _diagnostics() -> Iterator[Path]:
    """Catch what clang and the verifier print to file descriptor 2."""
    descriptor, name = tempfile.mkstemp(prefix="zpobs-bcc-", suffix=".log")
    log = Path(name)
    sys.stderr.flush()
    kept = os.dup(2)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    try:
        yield log
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        log.unlink(missing_ok=True)


def _keep(log: Path) -> Path:
    """Save a diagnostics file from removal; return the path of the copy."""
    copy = log.with_name(log.name.replace("zpobs-bcc-", "zpobs-bcc-failed-"))
    copy.write_bytes(log.read_bytes())
    return copy


def _lines(log: Path) -> list[str]:
    return [line for line in log.read_text(errors="replace").splitlines() if line.strip()]


def _first_error(log: Path) -> str:
    return next((line for line in _lines(log) if "error:" in line), "")
