"""Debian's Prometheus, with the configuration of `dashboards/`, a faster clock and another list of nodes."""

import json
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import yaml

DASHBOARDS = Path(__file__).parents[2] / "dashboards"


class Prometheus:
    """A server that scrapes a Ray cluster.

    Arguments:
        folder: Where its data go.
        nodes: Where Ray lists the ports of its nodes.
    """

    def __init__(self, folder: Path, nodes: Path) -> None:
        config = yaml.safe_load((DASHBOARDS / "prometheus.yml").read_text())
        config["global"] = dict.fromkeys(config["global"], "1s")
        config["scrape_configs"][0]["file_sd_configs"] = [{"files": [str(nodes)], "refresh_interval": "1s"}]
        shutil.copy(DASHBOARDS / "alerts.yml", folder)
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        self.url, self.began, self.log = f"http://{address}/", time.time(), folder / "log"
        command = ["prometheus", f"--config.file={folder}/prometheus.yml"]
        command += [f"--storage.tsdb.path={folder}/data", f"--web.listen-address={address}"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                urllib.request.urlopen(self.url + "-/ready", timeout=5).close()
                return
            except OSError:
                time.sleep(0.1)
        raise AssertionError(f"Prometheus did not start:\n{self.log.read_text()[-2000:]}")

    def values(self, query: str) -> list[dict[str, Any]]:
        """The series that a query gives, over all the time of the server."""
        end = time.time()
        step = max(1, int(end - self.began) // 5000)
        form = {"query": query, "start": self.began, "end": end, "step": step}
        return self._ask("api/v1/query_range", form)["result"]

    def rules(self) -> list[dict[str, Any]]:
        """Every alert rule, with its health."""
        return self._ask("api/v1/rules", {})["groups"][0]["rules"]

    def _ask(self, path: str, form: dict[str, Any]) -> Any:
        with urllib.request.urlopen(
            self.url + path + "?" + urllib.parse.urlencode(form), timeout=30
        ) as reply:
            answer = json.load(reply)
        assert answer["status"] == "success"
        return answer["data"]

    def stop(self) -> None:
        """End the server."""
        self.process.terminate()
        self.process.wait(30)
