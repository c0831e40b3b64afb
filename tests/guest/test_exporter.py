"""``zpobs exporter`` with probes: its counters against the operations that were done."""

from __future__ import annotations

from lab.workload import Churn, ZramDevice
from tests.native.exporter import Exporter, Series
from zpobs.views.metrics.definitions import METRICS

BY_NAME = {metric.name: metric for metric in METRICS}


def of_pool(found: Series, name: str) -> dict[str, float]:
    """Return a pool's series that have no other label."""
    pool = frozenset({("pool", name)})
    return {metric: value for (metric, labels), value in found.items() if labels == pool}


def lives_close(own: dict[str, float]) -> bool:
    """Tell whether births less deaths are the live zspages, as once all deferred frees are done."""
    # A page that came late has nothing but that.
    if "zpobs_pool_zspages" not in own:
        return False
    births, deaths = (own[f"zpobs_pool_zspage_{what}_total"] for what in ("births", "deaths"))
    return births - deaths == own["zpobs_pool_zspages"] > 0


def test_counters_are_the_operations_that_were_done(loader: str, attach_form: str) -> None:
    """Objects are what was allocated less what was freed; a reset makes nothing go back."""
    options = [
        "--loader",
        loader,
        "--attach",
        attach_form,
        "--per-class",
        "--bpf-stats",
        "--latency",
        "--life",
    ]
    with Exporter(*options, interval_s=4.0) as exporter:
        attached = "zpobs_probe_attached", frozenset({("function", "obj_malloc")})
        exporter.until(lambda found: found.get(attached) == 1)
        device = ZramDevice("64M")
        name = device.name
        Churn(device, operations=2000, seed=77).finish()
        exporter.until(lambda found: of_pool(found, name).get("zpobs_pool_objects", 0) > 0)
        found = exporter.renewed()
        own = of_pool(found, name)
        allocated = own["zpobs_pool_allocations_total"]
        assert allocated - own["zpobs_pool_frees_total"] == own["zpobs_pool_objects"] > 0
        assert own["zpobs_pool_allocation_failures_total"] == 0
        by_class = [
            value
            for (metric, labels), value in found.items()
            if metric == "zpobs_class_allocations_total" and ("pool", name) in labels
        ]
        assert sum(by_class) == allocated
        assert own["zpobs_pool_bytes"] == device.mm_stat()[2]
        exporter.until(lambda seen: lives_close(of_pool(seen, name)))
        device.compact()
        exporter.until(lambda seen: of_pool(seen, name).get("zpobs_pool_compactions_total", 0) > 0)
        # Each metric that takes probes is on the page.
        served = {metric.removesuffix("_bucket") for metric, _ in exporter.renewed()}
        missing = {each.name for each in METRICS if each.tier != "fullness"} - served
        assert {each for each in missing if BY_NAME[each].needs == "probes"} == set()
        device.reset()
        exporter.until(lambda seen: not of_pool(seen, name))
        device.set_up("64M")
        Churn(device, operations=200, seed=78).finish()
        seen = exporter.until(lambda seen: bool(of_pool(seen, name)))
        assert of_pool(seen, name)["zpobs_pool_allocations_total"] >= allocated
        device.remove()
