"""Families to bytes: as prometheus_client reads them, in the form that was asked for."""

from __future__ import annotations

import gzip
import subprocess
import threading

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.views.metrics.support import families_of, full_pool, make_moment
from zpobs.views.metrics import pages
from zpobs.views.metrics.families import Family
from zpobs.views.metrics.metric import Choice, Distribution
from zpobs.views.metrics.pages import Form, Page, wanted_form, wants_gzip

PARSE = {"text": parse_text, "openmetrics": parse_openmetrics}
ALL = Choice(per_class=True, per_class_fullness=True)


@pytest.fixture(scope="module")
def families() -> list[Family]:
    moment = make_moment(full_pool(), full_pool(2, 'zram"\\1\n'))
    return families_of(moment, choice=ALL)


def expected(families: list[Family]) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return every sample that there is to be, but for the buckets of histograms."""
    return {
        (family.metric.name, frozenset(zip(family.metric.all_labels, labels, strict=True))): value
        for family in families
        for labels, value in family.series.items()
        if not isinstance(value, Distribution)
    }


@pytest.mark.parametrize("form", ["text", "openmetrics"])
def test_a_parser_reads_what_was_written(families: list[Family], form: Form) -> None:
    """Every sample, with its labels and its value, whatever is in a name."""
    text = Page(families, 0).body(form).decode()
    found = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in PARSE[form](text)
        for sample in family.samples
    }
    histograms = tuple(each.metric.name for each in families if each.metric.kind == "histogram")
    buckets = {key for key in found if key[0].startswith(histograms)}
    assert {key: value for key, value in found.items() if key not in buckets} == expected(families)
    name = "zpobs_pool_zspage_lifetime_seconds_bucket"
    assert found[name, frozenset({("le", "+Inf"), ("pool", "zram0")})] == 3


def test_types_are_told(families: list[Family]) -> None:
    """As the table has them; OpenMetrics knows units and info."""
    text = Page(families, 0).body("openmetrics").decode()
    assert "# TYPE zpobs_build info\n" in text
    assert "# TYPE zpobs_pool_allocations counter\n" in text
    assert "# UNIT zpobs_pool_bytes bytes\n" in text
    assert "# TYPE zpobs_pool_zspage_lifetime_seconds histogram\n" in text
    assert text.endswith("# EOF\n")
    plain = Page(families, 0).body("text").decode()
    assert "# TYPE zpobs_pool_allocations_total counter\n" in plain
    assert "# EOF" not in plain


def test_promtool_has_nothing_against_it(families: list[Family]) -> None:
    """``promtool check metrics`` on a page with everything."""
    page = Page(families, 0).body("text")
    command = ["promtool", "check", "metrics"]
    done = subprocess.run(command, check=False, input=page, capture_output=True)
    assert (done.returncode, done.stderr, done.stdout) == (0, b"", b"")


def test_a_page_is_written_once_for_all(
    families: list[Family], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each form, however many threads ask for it at once."""
    calls = []
    rendered = pages.rendered

    def counted(families: tuple[Family, ...], form: Form) -> bytes:
        calls.append(form)
        return rendered(families, form)

    monkeypatch.setattr(pages, "rendered", counted)
    page = Page(families, 0)
    bodies: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: bodies.append(page.body("text", gzipped=True)))
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == ["text"]
    assert len(set(map(id, bodies))) == 1
    assert gzip.decompress(bodies[0]) == page.body("text")


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", "text"),
        ("*/*", "text"),
        ("text/html,application/xhtml+xml", "text"),
        ("application/openmetrics-text", "openmetrics"),
        # Prometheus 2.42, 2.53 and 3.5.
        (
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;"
            "version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "openmetrics",
        ),
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
            "text/plain;version=0.0.4;q=0.4,*/*;q=0.2",
            "openmetrics",
        ),
        ("text/plain;version=0.0.4,application/openmetrics-text;q=0.5", "text"),
        ("application/openmetrics-text;version=2.0.0", "text"),
        ("application/openmetrics-text;q=0,text/plain;q=0.1", "text"),
        ("application/openmetrics-text;q=nonsense", "text"),
    ],
)
def test_the_form_is_what_a_client_likes_best(accept: str, form: str) -> None:
    """By quality; plain text for those that name neither."""
    assert wanted_form(accept) == form


@pytest.mark.parametrize(
    ("accept", "gzipped"),
    [
        ("", False),
        ("gzip", True),
        ("deflate, gzip;q=0.5", True),
        ("gzip;q=0", False),
        ("identity", False),
        ("*", True),
    ],
)
def test_gzip_is_for_those_who_take_it(accept: str, gzipped: bool) -> None:
    """And for nobody else."""
    assert wants_gzip(accept) is gzipped
