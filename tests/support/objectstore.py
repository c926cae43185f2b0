"""A server of the S3 protocol, in a process of its own, on loopback."""

import contextlib
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

import pytest

SECRET = "a-secret-that-nobody-may-see"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def credentials(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Let this process reach a server."""
    for name, value in environment(address).items():
        monkeypatch.setenv(name, value)


def environment(address: str) -> dict[str, str]:
    """What lets a process reach a server, which takes anybody."""
    return {
        "AWS_ACCESS_KEY_ID": "anybody",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": address,
    }


@contextlib.contextmanager
def serve() -> Iterator[str]:
    """The address of a server that ends with the block; tests are skipped where moto or s3fs is missing."""
    pytest.importorskip("s3fs")
    pytest.importorskip("moto")
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/").close()
                break
            except OSError:
                assert process.poll() is None, "moto's server did not start"
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()
