"""Fault 5: MLflow hangs, fails or is gone during a promotion; the champion changes all the same, the rest waits."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest

from registry.ledger import verify
from registry.mlflow_store import MlflowProjection
from registry.snapshot import read_snapshot, snapshot_path
from tests.registry.rig import MODEL, World
from tests.tcp_proxy import TcpProxy

# The wait is bounded by the patience of each call (registry.mlflow_store), not by MLflow's own quarter of an hour; the
# test's timeout would show it.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        connection = HTTPConnection("127.0.0.1", port, timeout=2)
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a real MLflow server on loopback; ended with everything that it started."""
    folder, port = tmp_path_factory.mktemp("mlflow-server"), _free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", str(folder)]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 90
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.skip(f"MLflow's server did not start: {(folder / 'log').read_text()[-300:]}")
            time.sleep(0.2)
        yield port
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


@pytest.mark.parametrize("fault", ["hangs", "cuts off", "is gone"])
def test_a_promotion_does_not_wait_for_mlflow(
    server: int,
    tmp_path: Path,
    fault: str,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    """The new champion is on record and in the snapshot, MLflow is pending, and a reconcile brings it up to date."""
    for name, value in (("TIMEOUT", "2"), ("MAX_RETRIES", "1"), ("BACKOFF_FACTOR", "0")):
        monkeypatch.setenv(f"MLFLOW_HTTP_REQUEST_{name}", value)  # less patient than usual: the test is no longer
    with TcpProxy("127.0.0.1", server) as proxy:
        mlflow = MlflowProjection(f"http://127.0.0.1:{proxy.port}")
        world = World(tmp_path, mlflow=mlflow)
        version = world.register(f"first {fault}")
        assert world.registrar.projection.pending == {}, "while MLflow is well, nothing waits"
        proxy.stall = fault == "hangs"
        proxy.cut_after = 0 if fault == "cuts off" else None
        if fault == "is gone":
            mlflow = MlflowProjection(f"http://127.0.0.1:{_free_port()}")
            world = World(tmp_path, mlflow=mlflow)
        state = world.advance()
        assert state.champion == version
        assert "mlflow" in world.registrar.projection.pending[MODEL]
        served = read_snapshot(snapshot_path(tmp_path / "serving", MODEL))
        assert served.champion is not None
        assert served.champion.version == version
        verify(world.ledger.rows(MODEL))
        proxy.stall, proxy.cut_after = False, None
    with TcpProxy("127.0.0.1", server) as proxy:
        again = World(tmp_path, mlflow=MlflowProjection(f"http://127.0.0.1:{proxy.port}"))
        assert any("champion" in words for words in again.registrar.reconcile(MODEL, again.policy))
        assert again.registrar.reconcile(MODEL, again.policy) == ()
    record_property("promotions carried through while MLflow was away", "1")
