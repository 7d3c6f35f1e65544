"""A Redis server of the tests' own: loopback, a free port, nothing kept on disk, ended by its process id."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def redis_server(folder: Path, port: int | None = None) -> Iterator[tuple[str, int]]:
    """A running server: its address and process id; skips the test when there is none to be had."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    pytest.importorskip("redis", reason="the redis extra is not installed")
    place = port or free_port()
    settings = ["--port", str(place), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)]
    log = folder / "redis.log"
    with log.open("wb") as out:
        server = subprocess.Popen([program, *settings], stdout=out, stderr=out)
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", place)) == 0:
                    break
            if server.poll() is not None:
                pytest.skip(f"redis-server does not start: {log.read_text()[-200:]}")
            time.sleep(0.02)
        yield f"redis://127.0.0.1:{place}/0", server.pid
    finally:
        if server.poll() is None:
            os.kill(server.pid, signal.SIGKILL)
        server.wait(10)


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server for the tests of one module; import it where it is used."""
    with redis_server(tmp_path_factory.mktemp("redis")) as (url, _):
        yield url
