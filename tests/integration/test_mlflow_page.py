"""A person who compares the trials of a finished sweep in MLflow finds runs, parameters and charts."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

pytestmark = pytest.mark.slow
DRAWN = """() => [...document.querySelectorAll('.js-plotly-plot')].some(
    chart => chart.data.some(trace => trace.type.startsWith('scatter') && trace.y.length === 2))"""


@pytest.fixture(scope="module")
def server(undisturbed, tmp_path_factory) -> Iterator[str]:
    """The pages of the sweep's runs, by the command that the sweep printed, on another port."""
    (line,) = [line for line in undisturbed[1].splitlines() if "mlflow server" in line]
    command = shlex.split(line[line.index("env ") :])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command[2], command[-1] = str(Path(sys.executable).parent / "mlflow"), port
    path = tmp_path_factory.mktemp("mlflow") / "log"
    with path.open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    url, deadline = f"http://127.0.0.1:{port}/", time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(url + "health", timeout=5).close()
            break
        except OSError:
            assert process.poll() is None, path.read_text()[-2000:]
            assert time.monotonic() < deadline, path.read_text()[-2000:]
            time.sleep(0.3)
    yield url
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(30)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_printed_page_lists_the_evaluations_of_the_sweep(undisturbed, server, browser):
    (line,) = [line for line in undisturbed[1].splitlines() if "then open: " in line]
    page = browser.new_page()
    page.set_default_timeout(120_000)
    page.goto(server + line.partition(":5000/")[2])
    page.get_by_text("Sort: test/vrmse/1-20").first.wait_for()  # scores are beyond the edge of the window
    page.get_by_text("accuracy against compression").first.wait_for()
    page.get_by_text("diffusion").first.wait_for()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_comparison_shows_runs_parameters_and_charts(undisturbed, server, browser):
    client = MlflowClient(f"sqlite:///{undisturbed[0]}/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("lola/euler").experiment_id
    query = "tags.`lola.stage` = 'evaluation' and tags.`lola.model` = 'diffusion'"
    runs = client.search_runs([experiment], query)
    assert len(runs) == 2
    chosen = {"runs": [run.info.run_id for run in runs], "experiments": [experiment]}
    form = "&".join(f"{key}={urllib.parse.quote(json.dumps(value))}" for key, value in chosen.items())
    page = browser.new_page()
    page.set_default_timeout(120_000)  # a busy machine; the pages are large
    page.goto(f"{server}#/compare-runs?{form}")
    page.get_by_text("Comparing 2 Runs from 1 Experiment").wait_for()
    page.locator(".js-plotly-plot svg").first.wait_for()
    text = page.inner_text("body")
    for run in runs:
        assert run.info.run_name in text
    rows = [line.split("\t") for line in text.splitlines()]
    parameters = {row[0]: set(row[1:]) for row in rows if len(row) == 3}
    assert parameters["solver_steps"] == {"2", "4"}
    assert parameters["compression"] == {"20"}
    assert parameters["model"] == {"diffusion"}
    scores = [name for name in runs[0].data.metrics if name.endswith("/1-20")]
    assert any(name in text for name in scores)  # the list shows what is in view
    chart = page.locator(".js-plotly-plot").first
    assert "solver_steps" in chart.text_content()  # an axis: the runs differ by it
    page.get_by_text("Scatter Plot").click()
    page.wait_for_function(DRAWN)  # whether points are shapes or pixels is Plotly's choice
