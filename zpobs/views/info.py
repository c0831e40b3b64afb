"""``zpobs info`` as text."""

from __future__ import annotations

from datetime import UTC, datetime

from zpobs.capture.summary import Summary

_MEGA = 1e6


def render(summary: Summary) -> list[str]:
    """Return the lines that tell what a capture holds."""
    kernel = summary.environment["kernel"]
    rows: list[tuple[str, str]] = [
        ("file", f"{summary.path}, {summary.bytes:,} bytes in {summary.blocks:,} blocks"),
        (
            "kernel",
            f"{kernel['release']}, pages of {kernel['page_size']} bytes, "
            f"chains of up to {kernel['chain_size'] or 'unknown'} pages, {kernel['descriptor']}",
        ),
        ("host", _host(summary)),
        ("begin", _clock(summary.first_ns + summary.offset_ns)),
        ("end", f"{_clock(summary.last_ns + summary.offset_ns)}, {_why(summary)}"),
        ("span", f"{summary.seconds:,.1f} s"),
        ("probes", _probes(summary)),
        ("objects", _objects(summary)),
        ("pools", ", ".join(summary.pools) or "none"),
        ("records", _records(summary)),
    ]
    rows += [("", f"{count:>14,} {name}") for name, count in _sorted(summary.records)]
    rows.append(("operations", "" if summary.operations else "not counted: no probes"))
    rows += [("", f"{count:>14,} {name}") for name, count in (summary.operations or {}).items()]
    rows.append(("keys", f"{summary.keys:,}: reading can begin there"))
    rows.append(("lost", _lost(summary)))
    rows.append(("damage", "; ".join(summary.damage) or _undamaged(summary)))
    return [f"{name:<11}{text}".rstrip() for name, text in rows]


def _host(summary: Summary) -> str:
    host = summary.environment.get("host")
    if host is None:
        return "not told"
    memory = f"{host['memory_bytes'] / _MEGA:,.0f} MB"
    return f"{host['name'] or 'not told'}, {host['machine']}, {host['cpus']} CPUs, {memory}"


def _hooks(summary: Summary) -> list[str]:
    told = summary.environment.get("attach")
    return [] if told is None else list(told["hooks"])


def _sorted(records: dict[str, int] | None) -> list[tuple[str, int]]:
    return sorted((records or {}).items(), key=lambda each: -each[1])


def _clock(wall_ns: int) -> str:
    return f"{datetime.fromtimestamp(wall_ns / 1e9, tz=UTC):%Y-%m-%d %H:%M:%S} UTC"


def _why(summary: Summary) -> str:
    if summary.ended:
        return f"ended: {summary.ended}"
    return "not ended: the recorder was killed, or goes on"


def _probes(summary: Summary) -> str:
    told = summary.environment.get("attach")
    if told is None:
        return "not told"
    if not told["hooks"]:
        return "none: what scans saw"
    missing = f", not {', '.join(told['missing_hooks'])}" if told["missing_hooks"] else ""
    return f"{len(told['hooks'])} hooks by {told['form']}{missing}"


def _objects(summary: Summary) -> str:
    told = summary.environment.get("objects")
    if told is None or not _hooks(summary):
        return "not recorded" if told is None else "not recorded: no probes"
    return "all" if told["rate"] == 1 else f"1 in {told['rate']:,}, by handle"


def _records(summary: Summary) -> str:
    count = summary.record_count
    if not count:
        return "none"
    rate = f", {count / summary.seconds:,.0f}/s" if summary.seconds else ""
    return (
        f"{count:,}{rate}, at most {summary.peak_per_s:,.0f}/s; "
        f"{summary.bytes / count:.2f} bytes each"
    )


def _lost(summary: Summary) -> str:
    told = {name: count for name, count in summary.lost.items() if count}
    if not told:
        return "nothing"
    words = {
        "ring_full": "records found the ring full",
        "unpaired": "calls came without one of their ends",
        "missed_runs": "runs of probes were skipped",
    }
    return "; ".join(f"{count:,} {words.get(name, name)}" for name, count in told.items())


def _undamaged(summary: Summary) -> str:
    return "none" if summary.checked else "none in its headers (--check reads every block)"
