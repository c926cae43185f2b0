"""A real sweep makes an autoscaler bring nodes, ends on them, and they go when it has ended."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from autoscaling import Autoscaled, autoscaled
from stages import ROOT

from lola.workflows import presets
from lola.workflows.plan import SweepPlan

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.skipif(not os.path.exists("/proc"), reason="needs /proc"),
]
NODES = 3


def submit(cluster: Autoscaled, *arguments: str) -> subprocess.CompletedProcess:
    """Run a program as a job of the cluster, to its end."""
    command = [
        *(str(Path(sys.executable).parent / "ray"), "job", "submit", "--address", cluster.dashboard, "--"),
        *(sys.executable, str(ROOT / "experiments" / "sweep_compression.py"), *arguments),
    ]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    deadline = time.monotonic() + 120
    while True:
        job = subprocess.run(
            command, env=kept | cluster.known, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        # The head answers before the process that takes its jobs is there.
        if "No available agent" not in job.stdout or time.monotonic() > deadline:
            return job
        time.sleep(1)


@pytest.mark.parametrize(
    ("version", "options"),
    [
        (1, ("--concurrency", str(NODES))),
        # Ray Data is the first to ask for a node, and trials ask for one after the other.
        (2, ("--statistics", "computed", "--cache.actors", "2")),
    ],
)
def test_nodes_come_for_a_sweep_and_go(tmp_path, version, options):
    variables = {"LOLA_STORAGE": str(tmp_path), "PYTHONPATH": str(ROOT)}
    with autoscaled(NODES, version=version, **variables) as cluster:
        assert cluster.nodes == 0
        result = submit(cluster, "smoke", *options)
        assert result.returncode == 0, result.stdout[-6000:]
        assert cluster.most >= 2, cluster.watched
        cluster.wait(0, seconds=120)
    (report,) = tmp_path.glob("reports/*/report.html")
    assert f"report: {report}" in result.stdout.replace("\n", "")
    planned = SweepPlan(presets.smoke(), tmp_path, tmp_path / "well-smoke").evaluations
    assert len(list(tmp_path.glob("evaluations/*/manifest.json"))) == len(planned)
    print(f"nodes over time, in seconds: {cluster.watched}")
