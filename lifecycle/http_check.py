"""Starts the real BentoML service once, asks it over HTTP, and holds its answers against the handler's."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from contracts.errors import DependencyDown
from contracts.settings import Settings
from contracts.times import iso

START_SECONDS = 60.0


@dataclass(frozen=True)
class HttpCheck:
    """How many answers were compared, and the ids of those that differed."""

    model: str
    compared: int
    different: tuple[str, ...]


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def service_command(port: int, host: str = "127.0.0.1") -> list[str]:
    """The command that serves this workspace from source through BentoML."""
    target = "serving.service:SeatrialService"
    root = str(Path(__file__).resolve().parents[1])
    arguments = ["serve", target, "--host", host, "--port", str(port), "--working-dir", root]
    return [sys.executable, "-m", "bentoml", *arguments]


def service_environment(settings: Settings, now: datetime | None = None) -> dict[str, str]:
    """Environment of a service over this workspace; `now` fixes its clock."""
    env = dict(os.environ)
    env |= {
        "SEATRIAL_HOME": str(settings.home.absolute()),
        "SEATRIAL_POLICIES": str(settings.policies.absolute()),
        "SEATRIAL_FEATURES": str(settings.features.absolute()),
        "SEATRIAL_LEDGER_URL": settings.ledger_url,
        "SEATRIAL_TRACKING_URI": settings.tracking_uri,
        "BENTOML_DO_NOT_TRACK": "True",
        "OMP_NUM_THREADS": "1",
    }
    if now is not None:
        env["SEATRIAL_CLOCK"] = iso(now)
    return env


@contextmanager
def running_service(settings: Settings, now: datetime) -> Iterator[str]:
    """A BentoML service on a free loopback port, ended by its process id afterwards; gives its address.

    Raises:
        DependencyDown: the service ended or was not ready within a minute; says what it printed last.
    """
    from serving.client import Client

    port = free_port()
    log = settings.reports / "bentoml-service.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            service_command(port),
            env=service_environment(settings, now),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + START_SECONDS
            while not Client(address).ready():
                if process.poll() is not None or time.monotonic() > deadline:
                    tail = log.read_text(errors="replace")[-600:]
                    raise DependencyDown("BentoML service", f"not ready; it printed last: {tail}")
                time.sleep(0.1)
            yield address
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=10)


def compare(
    address: str, model: str, kind: str, handler: Any, requests: list[dict[str, Any]], *, key: str = ""
) -> HttpCheck:
    """Ask the service and the handler the same things under different request ids and compare what they answer.

    Args:
        address: of the running service.
        model: the model's name.
        kind: forecast or risk.
        handler: the in-process handler, on the same clock.
        requests: requests without request_id.
        key: an API key or token, where access is required.

    Returns:
        what was compared: rung, version, every number, the reasons, and the decision read back by its id.
    """
    from serving.client import Client

    client = Client(address, key=key)
    compared, different = 0, []
    for number, request in enumerate(requests):
        ours = (handler.forecast if kind == "forecast" else handler.score)(
            model, {**request, "request_id": f"inside-{model}-{number}"}
        )
        theirs = client.ask(
            model, "forecast" if kind == "forecast" else "score", {**request, "request_id": f"http-{model}-{number}"}
        )
        for mine, answer in zip(ours, theirs["decisions"], strict=True):
            compared += 1
            record = client.decision(answer["decision_id"])
            if record["answer"] != mine.answer.model_dump(mode="json"):
                different.append(answer["decision_id"])
    return HttpCheck(model, compared, tuple(different))
