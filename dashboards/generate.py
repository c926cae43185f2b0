"""The Grafana dashboard and the alert rules as code: `python dashboards/generate.py` writes them.

Queries name metrics of `lola.storage.live_metrics.METRICS`, to which Ray adds the prefix `ray_`, and some of
its own.
Totals of a driver that died stay at Ray's agent: the largest of a run's is its present one, since they only
grow and a run has one driver at a time.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

import yaml

from lola.storage.live_metrics import METRICS

HERE = Path(__file__).parent
DASHBOARD, RULES = HERE / "grafana" / "lola.json", HERE / "alerts.yml"
SOURCE = {"type": "prometheus", "uid": "${source}"}
CHOSEN = '{sweep=~"$sweep", run=~"$run"}'
SWEEP = '{sweep=~"$sweep"}'
COLUMNS, HEIGHT = 24, 8


@dataclasses.dataclass(frozen=True)
class Panel:
    """A panel.

    Arguments:
        title: What it shows.
        query: In PromQL, with the dashboard's variables.
        legend: How its series are named.
        unit: Of Grafana's names.
        kind: How it is drawn.
        width: Columns of 24.
    """

    title: str
    query: str
    legend: str = "{{run}}"
    unit: str = "short"
    kind: Literal["timeseries", "stat", "bargauge"] = "timeseries"
    width: int = 8
    log: bool = False
    stacked: bool = False


@dataclasses.dataclass(frozen=True)
class Alert:
    """An alert: a value of which a condition must not hold for longer than a while."""

    name: str
    value: str
    condition: str
    lasts: str
    severity: Literal["warning", "critical"]
    summary: str
    remedy: str

    @property
    def query(self) -> str:
        return f"({self.value}) {self.condition}"


def of_run(name: str) -> str:
    """The present value of a metric of each run."""
    return of_chosen(name, "run", CHOSEN)


def of_chosen(name: str, by: str, chosen: str = SWEEP, function: str = "max") -> str:
    """The values of a metric of what is chosen, by a label."""
    return f"{function} by ({by}) (ray_{known(name)}{chosen})"


def known(name: str) -> str:
    """The name of a metric that there is."""
    if name not in METRICS:
        raise KeyError(f"lola.storage.live_metrics knows no metric {name}")
    return name


def of_machine(title: str, query: str, unit: str) -> Panel:
    """A panel with a series for each machine."""
    return Panel(title, query, "{{instance}}", unit, width=6)


ROWS: dict[str, list[Panel]] = {
    "Sweep": [
        Panel("Trials by state", of_chosen("lola_sweep_trials", "state"), "{{state}}", stacked=True),
        Panel(
            "Time to finish", of_chosen("lola_sweep_remaining_seconds", "sweep"), "{{sweep}}", "s", "stat", 4
        ),
        Panel(
            "Median time of a stage",
            "histogram_quantile(0.5, sum by (le, stage, model) "
            f"(ray_{known('lola_stage_seconds')}_bucket{SWEEP}))",
            "{{stage}} {{model}}",
            "s",
            "bargauge",
            4,
        ),
        Panel("Progress of stages", of_run("lola_stage_progress_ratio"), unit="percentunit", kind="bargauge"),
    ],
    "Training": [
        Panel("Training loss", of_run("lola_train_loss"), log=True),
        Panel("Validation loss", of_run("lola_valid_loss"), log=True),
        Panel("Gradient norm", of_run("lola_train_gradient_norm"), log=True),
        Panel("Samples per second", of_run("lola_train_samples_per_second")),
        Panel("Samples trained on", of_run("lola_train_samples_total")),
        Panel(
            "Skipped steps",
            f"{of_run('lola_train_skipped_steps_total')} or 0 * {of_run('lola_train_samples_total')}",
        ),
        Panel("Time of a step", of_run("lola_train_step_seconds"), unit="s", width=6),
        Panel("Waiting for data", of_run("lola_train_data_wait_ratio"), unit="percentunit", width=6),
        Panel("Memory of a worker", of_run("lola_train_memory_bytes"), unit="bytes", width=6),
        Panel("Model FLOP utilisation", of_run("lola_train_mfu"), unit="percentunit", width=6),
    ],
    "Encoding and evaluation": [
        Panel("States encoded per second", of_run("lola_encode_states_per_second"), width=6),
        Panel("Latents written", of_run("lola_encode_bytes_per_second"), unit="Bps", width=6),
        Panel("Shards left", of_run("lola_encode_shards_left"), width=6),
        Panel("Trajectories left", of_run("lola_evaluate_trajectories_left"), width=6),
    ],
    "Machines": [
        Panel(
            "Free space of the storage root",
            of_chosen("lola_storage_free_bytes", "sweep", function="min"),
            *("{{sweep}}", "bytes"),
            width=6,
        ),
        of_machine("Processors in use", "max by (instance) (ray_node_cpu_utilization)", "percent"),
        of_machine("Memory in use", "max by (instance) (ray_node_mem_used)", "bytes"),
        of_machine("Object store in use", "sum by (instance) (ray_object_store_memory)", "bytes"),
    ],
}

_BY = "max by (sweep, system, stage, model, run)"
ALERTS = [
    Alert(
        "LolaStageStalled",
        f"time() - {_BY} (ray_{known('lola_stage_reported_timestamp_seconds')})"
        f" and on (run) max by (run) (ray_{known('lola_stage_running')}) == 1",
        "> 1800",
        "5m",
        "warning",
        "{{ $labels.run }} has reported nothing for {{ $value | humanizeDuration }}",
        "Look at its worker in Ray's dashboard; killing the worker lets it go on from its last checkpoint.",
    ),
    Alert(
        "LolaLossNotFinite",
        f"{_BY} (ray_{known('lola_train_nonfinite')})",
        "> 0",
        "0m",
        "critical",
        "{{ $labels.run }} has losses or gradients that are not finite",
        "Steps with such gradients are skipped. If it stays so, train with a smaller learning rate.",
    ),
    Alert(
        "LolaDataStarved",
        f"{_BY} (ray_{known('lola_train_data_wait_ratio')})",
        "> 0.2",
        "15m",
        "warning",
        "{{ $labels.run }} spends {{ $value | humanizePercentage }} of its time waiting for data",
        "Give it more CPUs per worker, or bring the data closer.",
    ),
    Alert(
        "LolaTrialsFailed",
        f"max by (sweep, system) (ray_{known('lola_sweep_trials')}{{state='failed'}})",
        "> 0",
        "0m",
        "warning",
        "{{ $value }} trials of sweep {{ $labels.sweep }} have failed",
        "The sweep names them and why when it ends; the same command tries them again.",
    ),
    Alert(
        "LolaStorageNearlyFull",
        f"min by (sweep, system) (ray_{known('lola_storage_free_bytes')})"
        f" / max by (sweep, system) (ray_{known('lola_storage_size_bytes')})",
        "< 0.1",
        "5m",
        "critical",
        "{{ $value | humanizePercentage }} of the storage root of sweep {{ $labels.sweep }} is free",
        "Free some space: a full disk stops the sweep; run it again to resume.",
    ),
    Alert(
        "LolaNodeDiskNearlyFull",
        "max by (instance) (ray_node_disk_utilization_percentage)",
        "> 90",
        "5m",
        "warning",
        "{{ $value }} % of the disk of {{ $labels.instance }} is taken",
        "Ray spills objects and keeps sessions there: remove old sessions, or give it another --temp-dir.",
    ),
]


def dashboard() -> dict[str, Any]:
    """The dashboard, as Grafana's provisioning reads it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS.items():
        panels.append(
            {"id": len(panels) + 1, "type": "row", "title": title, "gridPos": _place(0, y, COLUMNS, 1)}
        )
        x, y = 0, y + 1
        for panel in row:
            if x + panel.width > COLUMNS:
                x, y = 0, y + HEIGHT
            panels.append(_panel(panel, len(panels) + 1, _place(x, y, panel.width, HEIGHT)))
            x += panel.width
        y += HEIGHT
    return {
        "uid": "lola",
        "title": "LOLA",
        "schemaVersion": 39,
        "editable": False,
        "refresh": "10s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": _variables()},
        "panels": panels,
    }


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    custom: dict[str, Any] = {"lineWidth": 1, "showPoints": "auto"}
    if panel.log:
        custom["scaleDistribution"] = {"type": "log", "log": 10}
    if panel.stacked:
        custom |= {"stacking": {"mode": "normal"}, "fillOpacity": 40}
    defaults: dict[str, Any] = {"unit": panel.unit, "custom": custom if panel.kind == "timeseries" else {}}
    if panel.unit == "percentunit":
        defaults |= {"min": 0, "max": 1}
    metric = next((METRICS[name] for name in METRICS if f"ray_{name}" in panel.query), None)
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": metric.description if metric else "",
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}}
        if panel.kind == "timeseries"
        else {"reduceOptions": {"calcs": ["lastNotNull"]}},
        "targets": [{"refId": "A", "datasource": SOURCE, "expr": panel.query, "legendFormat": panel.legend}],
    }


def _place(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


def _variables() -> list[dict[str, Any]]:
    """Which Prometheus, which sweeps and which runs."""
    source = {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    queries = {
        "sweep": "label_values(ray_lola_sweep_trials, sweep)",
        "run": 'label_values(ray_lola_stage_progress_ratio{sweep=~"$sweep"}, run)',
    }
    chosen = {"selected": True, "text": "All", "value": "$__all"}
    return [source] + [
        {
            "name": name,
            "type": "query",
            "datasource": SOURCE,
            "definition": query,
            "query": {"query": query, "refId": name},
            "refresh": 2,
            "includeAll": True,
            "allValue": ".*",
            "multi": True,
            "current": chosen,
        }
        for name, query in queries.items()
    ]


def rules() -> dict[str, Any]:
    """The alert rules, as Prometheus reads them."""
    return {
        "groups": [
            {
                "name": "lola",
                "rules": [
                    {
                        "alert": alert.name,
                        "expr": alert.query,
                        "for": alert.lasts,
                        "labels": {"severity": alert.severity},
                        "annotations": {"summary": alert.summary, "remedy": alert.remedy},
                    }
                    for alert in ALERTS
                ],
            }
        ]
    }


def rendered() -> dict[Path, str]:
    """What is written, by file."""
    note = "# Written by dashboards/generate.py\n"
    return {
        DASHBOARD: json.dumps(dashboard(), indent=1) + "\n",
        RULES: note + yaml.safe_dump(rules(), sort_keys=False, width=100),
    }


if __name__ == "__main__":
    for path, text in rendered().items():
        path.write_text(text)
