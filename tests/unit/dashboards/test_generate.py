"""The dashboard and the alerts in the repository are those that the code writes, taken by Prometheus."""

import itertools
import json
import re
import shutil
import subprocess

import generate
import pytest
import yaml

from lola.storage.live_metrics import METRICS

HERE = generate.HERE


def test_files_are_what_the_code_writes():
    for path, text in generate.rendered().items():
        assert path.read_text() == text, f"{path.name} is old: run python dashboards/generate.py"


def test_every_metric_is_shown_or_watched():
    queries = " ".join(panel.query for row in generate.ROWS.values() for panel in row)
    queries += " ".join(alert.query for alert in generate.ALERTS)
    used = set(re.findall(r"ray_(lola_\w+)", queries))
    assert {name.removesuffix("_bucket") for name in used} == set(METRICS)


def test_panels_have_places_of_their_own():
    panels = generate.dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for a, b in itertools.combinations([panel["gridPos"] for panel in panels], 2):
        apart = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        assert apart or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
    assert all(place["x"] + place["w"] <= 24 for place in (panel["gridPos"] for panel in panels))


def test_grafana_is_configured_with_dashboard_and_prometheus():
    provisioning = HERE / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "lola.yaml").read_text())["datasources"]
    assert source["type"] == "prometheus"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "lola.yaml").read_text())["providers"]
    assert provider["options"]["path"] == "${LOLA_DASHBOARDS}"
    assert json.loads(generate.DASHBOARD.read_text())["uid"] == "lola"


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is missing: apt-get install prometheus")
@pytest.mark.parametrize(
    "check", [("check", "config", "prometheus.yml"), ("test", "rules", "alerts_test.yml")], ids=" ".join
)
def test_prometheus_takes_configuration_and_rules(check):
    answer = subprocess.run(["promtool", *check], cwd=HERE, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_every_alert_is_tested():
    tests = yaml.safe_load((HERE / "alerts_test.yml").read_text())["tests"]
    fired = {one["alertname"] for test in tests for one in test["alert_rule_test"] if one["exp_alerts"]}
    assert fired == {alert.name for alert in generate.ALERTS}
