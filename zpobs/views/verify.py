"""``zpobs verify`` as text: the verdict first, then what it rests on; a pure function."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

from zpobs.snapshot import Health
from zpobs.verify.findings import BusyClass, Difference, PoolComparison, Value
from zpobs.verify.rounds import CheckedPool, Report
from zpobs.verify.witnesses import Witness

_VERDICTS = {"differs": "DIFFERS", "outside": "outside"}


def render(report: Report, *, limit: int) -> list[str]:
    """Return the lines of one report, with at most ``limit`` differences and busy classes each."""
    comparison = report.comparison
    lines = [_pool_line(pool, report) for pool in comparison.pools]
    lines += comparison.meanwhile
    if not comparison.pools and not comparison.meanwhile:
        lines.append(_no_pool_line(report))
    wrong = Counter(each.subject for each in report.witnesses if each.contradicts)
    lines += [
        f"{subject}: contradicted by {_plural(count, 'witness', 'witnesses')}"
        for subject, count in wrong.items()
    ]
    lines += [
        f"{each.name}: {_plural(len(each.violated), 'violation')} of invariants"
        for each in report.invariants or ()
        if each.violated
    ]
    if not report.verified:
        lines.append("nothing could be verified")
    lines += report.missing
    lines += _when(report)
    for pool in comparison.pools:
        lines += _pool(pool, limit)
    lines += _witnesses(report.witnesses)
    if report.invariants is not None:
        lines += ["", "invariants of descriptors:"]
        for checked in report.invariants:
            lines += _invariants(checked, limit)
    return lines


def _pool_line(pool: PoolComparison, report: Report) -> str:
    trust = "" if pool.status == "exact" else f"model {pool.status}; "
    basis = f"({trust}{_basis(report.health)})"
    count = len(pool.differences) + sum(each.outside for each in pool.busy)
    if pool.lonely:
        whose = "the model" if pool.sums[0].kernel is None else "the kernel"
        return f"{pool.name}: only {whose} has this pool {basis}"
    if count:
        return f"{pool.name}: {_plural(count, 'difference')} in {pool.zspages:,} zspages {basis}"
    if not pool.compared:
        return f"{pool.name}: busy, nothing compared {basis}"
    frames = f"and {pool.frames:,} page frames " if pool.frames else ""
    left = f", {_plural(len(pool.busy), 'class', 'classes')} busy" if pool.busy else ""
    return f"{pool.name}: {pool.zspages:,} zspages {frames}equal{left} {basis}"


def _no_pool_line(report: Report) -> str:
    if report.pool is None:
        return f"no zsmalloc pool, in the model as in the kernel ({_basis(report.health)})"
    return f"{report.pool}: there is no such pool now"


def _basis(health: Health) -> str:
    probes = _plural(health.hooks, "hook") if health.hooks else "none attached"
    return f"scans applied to the model: {health.scans}; probes: {probes}"


def _when(report: Report) -> list[str]:
    when = datetime.fromtimestamp(report.time_ns / 1e9, UTC)
    tries = _plural(report.tries, "try", "tries")
    health = report.health
    lines = [
        f"  {when:%Y-%m-%d %H:%M:%S} UTC, {report.kernel.release}, {tries}; model {health.status}, "
        f"lost {health.lost}, missed runs {health.missed_runs}"
    ]
    if health.missed_hooks and health.hooks:
        lines.append("  missed hooks: " + ", ".join(health.missed_hooks))
    return lines + [f"  {reason}" for reason in health.reasons]


def _pool(pool: PoolComparison, limit: int) -> Iterator[str]:
    if (not pool.differences and not pool.busy) or pool.lonely:
        return
    yield ""
    yield f"{pool.name}:"
    differences = pool.differences
    yield from (f"  {_difference(each)}" for each in differences[:limit])
    if len(differences) > limit:
        left = _plural(len(differences) - limit, "more difference")
        yield f"  {left} (--limit, or --json for all)"
    busy = sorted(pool.busy, key=lambda each: not each.outside)
    yield from (f"  {_busy(each)}" for each in busy[:limit])
    if len(busy) > limit:
        yield f"  {_plural(len(busy) - limit, 'more busy class', 'more busy classes')}"


def _difference(each: Difference) -> str:
    place = "all classes" if each.class_index is None else f"class {each.class_index}"
    if each.zspage is not None:
        place += f" zspage {each.zspage:#x}"
    if each.field == "zspage":
        if each.kernel is None:
            what = f"the kernel has no such zspage; model: {each.shadow} objects"
        else:
            what = f"the model has no such zspage; kernel: {each.kernel} objects"
    else:
        what = f"{each.field}: model {_value(each.shadow)}, kernel {_value(each.kernel)}"
    return f"{place} {what} (model: {each.standing})"


def _value(value: Value) -> str:
    if isinstance(value, tuple):
        return "[" + " ".join(str(each) for each in value) + "]" if value else "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else f"{value:,}"


def _busy(each: BusyClass) -> str:
    line = f"class {each.index} busy: {each.reason}; objects: model {each.shadow:,}, "
    line += f"kernel {each.kernel:,}"
    if each.lowest is None or each.highest is None:
        return f"{line}, not bounded"
    allowed = f"{each.lowest:,} to {each.highest:,}"
    if each.outside:
        return f"{line}, OUTSIDE {allowed} (model: {each.standing})"
    return f"{line}, within {allowed}"


def _witnesses(witnesses: tuple[Witness, ...]) -> list[str]:
    if not witnesses:
        return []
    lines = ["", "witnesses:"]
    told = [each for each in witnesses if each.verdict != "absent"]
    if told:
        lines.append(
            f"  {'OF':<10}{'WITNESS':<28}{'MODEL':>11}{'KERNEL':>16} "
            f"{'UNIT':<13}{'STANDING':<12}VERDICT"
        )
    for each in told:
        verdict = _VERDICTS.get(each.verdict, each.verdict)
        lines.append(
            f"  {each.subject:<9.9} {each.name:<27} {each.shadow:>11,}{_range(each):>16} "
            f"{each.unit:<13}{each.standing:<12}{verdict}"
        )
        if each.why:
            lines.append(f"{'':12}{each.why}")
    lines += [
        f"  {each.subject:<9.9} {each.name}: not available: {each.why}"
        for each in witnesses
        if each.verdict == "absent"
    ]
    return lines


def _range(each: Witness) -> str:
    if each.lowest == each.highest:
        return f"{each.lowest:,}"
    low = "" if each.lowest is None else f"{each.lowest:,}"
    high = "" if each.highest is None else f"{each.highest:,}"
    return f"{low}..{high}"


def _invariants(pool: CheckedPool, limit: int) -> Iterator[str]:
    violated = [each.invariant for each in pool.violated]
    for check in pool.findings.checks:
        count = violated.count(check.invariant)
        unit = _plural(check.checked, check.unit, "classes" if check.unit == "class" else None)
        verdict = f"VIOLATED: {count:,} of" if count else "holds for"
        yield f"  {pool.name:<9.9} {check.invariant:<17} {verdict} {unit}"
        for reason, unchecked in check.unchecked:
            yield f"{'':12}{'':18}not checked for {unchecked:,}: {reason}"
    yield from (f"  {each}" for each in pool.violated[:limit])
    if len(pool.violated) > limit:
        left = _plural(len(pool.violated) - limit, "more violation")
        yield f"  {left} (--limit, or --json for all)"


def _plural(count: int, one: str, many: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"
