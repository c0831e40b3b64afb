"""The rules: checked, unit-tested by promtool, and about metrics that there are."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from zpobs.views.metrics.definitions import METRICS

FOLDER = Path(__file__).resolve().parents[2] / "dashboards" / "rules"
RULES, TESTS = FOLDER / "zpobs.rules.yml", FOLDER / "zpobs.rules.test.yml"
ALL: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
]
ALERTS = [rule for rule in ALL if "alert" in rule]
RECORDS = [rule for rule in ALL if "record" in rule]
NAMES = {metric.name: metric for metric in METRICS}


def name_of(rule: dict[str, Any]) -> str:
    return str(rule.get("alert") or rule["record"])


def promtool(*arguments: str) -> None:
    done = subprocess.run(
        ["promtool", *arguments], check=False, cwd=FOLDER, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_are_rules() -> None:
    """As promtool reads them."""
    promtool("check", "rules", RULES.name)


def test_their_unit_tests_pass() -> None:
    """Those beside them."""
    promtool("test", "rules", TESTS.name)


@pytest.mark.parametrize("rule", ALL, ids=name_of)
def test_each_has_a_unit_test(rule: dict[str, Any]) -> None:
    """Alerts one that fires and, unless they fire at once, a time before; records a value."""
    cases = [
        case
        for each in yaml.safe_load(TESTS.read_text())["tests"]
        for case in (*each.get("alert_rule_test", ()), *each.get("promql_expr_test", ()))
    ]
    if "alert" in rule:
        own = [case for case in cases if case.get("alertname") == rule["alert"]]
        assert any(case["exp_alerts"] for case in own)
    else:
        own = [case for case in cases if str(case.get("expr", "")).startswith(rule["record"])]
        assert any(case["exp_samples"] for case in own)


@pytest.mark.parametrize("rule", ALL, ids=name_of)
def test_they_ask_for_metrics_that_there_are(rule: dict[str, Any]) -> None:
    """With labels that these have, and counters only as rates."""
    for name in re.findall(r"(?<![:\w])zpobs_\w+", rule["expr"]):
        assert name in NAMES, name
        if NAMES[name].kind == "counter":
            assert re.search(rf"(rate|increase)\({name}(\{{[^}}]*\}})?\[", rule["expr"]), name
    for name, selectors in re.findall(r"(zpobs_\w+)\{([^}]*)\}", rule["expr"]):
        assert set(re.findall(r"(\w+)=", selectors)) <= set(NAMES[name].all_labels)


@pytest.mark.parametrize("rule", ALERTS, ids=name_of)
def test_alerts_say_what_and_where(rule: dict[str, Any]) -> None:
    """Severity, a summary with the instance, and more words."""
    assert rule["labels"]["severity"] in ("info", "warning", "critical")
    assert "{{ $labels.instance }}" in rule["annotations"]["summary"]
    assert len(rule["annotations"]["description"]) > 30


@pytest.mark.parametrize("rule", RECORDS, ids=name_of)
def test_records_are_named_by_level_metric_and_operation(rule: dict[str, Any]) -> None:
    """level:metric:operations."""
    level = r"(instance(_pool)?|job(_owner(_class|_size_max)?)?)"
    assert re.fullmatch(rf"{level}:zpobs_\w+:\w+", rule["record"])


@pytest.mark.parametrize(
    "words",
    [
        "FragmentationCurable",
        "FragmentationIncurable",
        "AllocationFailures",
        "RecordsLost",
        "Divergence",
        "MigrationFailures",
        "PoolNearLimit",
        "ExporterStale",
        "ProbesMissing",
    ],
)
def test_there_is_an_alert_for_each_trouble(words: str) -> None:
    """All that was promised."""
    assert f"Zpobs{words}" in map(name_of, ALERTS)
