"""Families in, the bytes of pages out: each form is written once, whoever asks for it."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterable, Iterator
from typing import Literal

from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric as ClientMetric
from prometheus_client.openmetrics import exposition as openmetrics

from zpobs.views.metrics.families import Family
from zpobs.views.metrics.metric import Distribution

Form = Literal["text", "openmetrics"]

CONTENT_TYPES: dict[Form, str] = {
    "text": "text/plain; version=0.0.4; charset=utf-8",
    "openmetrics": openmetrics.CONTENT_TYPE_LATEST,
}
_GZIP_LEVEL = 3


class Page:
    """What was known at one moment, ``made_s`` (monotonic): its bytes in every form."""

    def __init__(self, families: Iterable[Family], made_s: float) -> None:
        self.made_s = made_s
        self._families = tuple(families)
        self._lock = threading.Lock()
        self._bodies: dict[tuple[Form, bool], bytes] = {}

    def body(self, form: Form, *, gzipped: bool = False) -> bytes:
        """Return the page in a form; written at the first call, for all threads."""
        with self._lock:
            key = form, gzipped
            if key not in self._bodies:
                plain = self._bodies.get((form, False))
                if plain is None:
                    plain = self._bodies[form, False] = rendered(self._families, form)
                if gzipped:
                    # No time in it: the same page is the same bytes.
                    self._bodies[key] = gzip.compress(plain, _GZIP_LEVEL, mtime=0)
            return self._bodies[key]


class _Collected:
    """What prometheus_client writes out."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[ClientMetric]:
        for family in self._families:
            yield _client_metric(family)


def rendered(families: Iterable[Family], form: Form) -> bytes:
    """Write families out in a form."""
    collected = _Collected(families)
    if form == "text":
        return bytes(generate_latest(collected))
    return bytes(openmetrics.generate_latest(collected))  # type: ignore[no-untyped-call]


def _client_metric(family: Family) -> ClientMetric:
    metric = family.metric
    stem = metric.name
    if metric.kind == "counter":
        stem = stem.removesuffix("_total")
    elif metric.kind == "info":
        stem = stem.removesuffix("_info")
    made = ClientMetric(stem, f"{metric.help}.", metric.kind, metric.unit)
    names = metric.all_labels
    for values, number in family.series.items():
        labels = dict(zip(names, values, strict=True))
        if isinstance(number, Distribution):
            _add_histogram(made, stem, labels, number)
        else:
            made.add_sample(metric.name, labels, number)
    return made


def _add_histogram(
    made: ClientMetric, name: str, labels: dict[str, str], value: Distribution
) -> None:
    count = 0
    for bound, number in sorted(value.counts.items()):
        count += number
        made.add_sample(f"{name}_bucket", labels | {"le": repr(float(bound))}, count)
    count += value.above
    made.add_sample(f"{name}_bucket", labels | {"le": "+Inf"}, count)
    made.add_sample(f"{name}_count", labels, count)
    made.add_sample(f"{name}_sum", labels, value.total)


def wanted_form(accept: str) -> Form:
    """Return the form that an Accept header likes best, the text form if it names neither."""
    best, form = 0.0, "text"
    for each in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in each.split(";"))
        quality = _quality(parameters)
        versions = [part for part in parameters if part.startswith("version=")]
        known = "openmetrics" if kind == "application/openmetrics-text" else "text"
        if known == "openmetrics" and versions not in ([], ["version=1.0.0"], ["version=0.0.1"]):
            continue
        if known == "text" and kind not in ("text/plain", "text/*", "*/*"):
            continue
        if quality > best:
            best, form = quality, known
    return "openmetrics" if form == "openmetrics" else "text"


def wants_gzip(accept_encoding: str) -> bool:
    """Tell whether an Accept-Encoding header takes gzip."""
    for each in accept_encoding.split(","):
        coding, *parameters = (part.strip().lower() for part in each.split(";"))
        if coding in ("gzip", "*"):
            return _quality(parameters) > 0
    return False


def _quality(parameters: Iterable[str]) -> float:
    for part in parameters:
        if part.startswith("q="):
            try:
                return float(part[2:])
            except ValueError:
                return 0.0
    return 1.0
