"""Every panel and every alert queries something that a real sweep on a real cluster exports to Prometheus."""

import json

import generate
import pytest

from lola.storage.live_metrics import METRICS

pytestmark = pytest.mark.slow


def chosen(query: str) -> str:
    """A query with all sweeps and runs chosen."""
    return query.replace("$sweep", ".*").replace("$run", ".*")


def test_every_panel_has_data(prometheus):
    panels = json.loads(generate.DASHBOARD.read_text())["panels"]
    queries = {panel["title"]: target["expr"] for panel in panels for target in panel.get("targets", [])}
    assert len(queries) > 15
    empty = [title for title, query in queries.items() if not prometheus.values(chosen(query))]
    assert not empty


def test_every_alert_has_a_value_and_a_sweep_in_health_raises_none(prometheus):
    assert not [alert.name for alert in generate.ALERTS if not prometheus.values(alert.value)]
    rules = {rule["name"]: rule for rule in prometheus.rules()}
    assert rules.keys() == {alert.name for alert in generate.ALERTS}
    assert {rule["health"] for rule in rules.values()} == {"ok"}
    expected = {"LolaStorageNearlyFull", "LolaNodeDiskNearlyFull"}  # these are this machine's own
    assert not [name for name, rule in rules.items() if name not in expected and rule["alerts"]]


def test_prometheus_has_seen_what_the_sweep_did(prometheus):
    names = {series["metric"]["__name__"] for series in prometheus.values('{__name__=~"ray_lola_.*"}')}
    exported = {name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count") for name in names}
    # Without a skipped step there is nothing to count.
    assert exported == {f"ray_{name}" for name in METRICS} - {"ray_lola_train_skipped_steps_total"}
    samples = prometheus.values("max by (run) (ray_lola_train_samples_total)")
    assert {float(series["values"][-1][1]) for series in samples} == {80.0}  # 20 steps of 4
    assert len(samples) == 4
    for name, low, high in (("mfu", 0, 1), ("data_wait_ratio", 0, 1), ("memory_bytes", 1e7, 1e11)):
        for series in prometheus.values(f"ray_lola_train_{name}"):
            assert all(low <= float(value) < high for _, value in series["values"]), name
