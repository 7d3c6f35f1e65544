"""The real thing: a bento is built from this checkout and served by BentoML, offline, on loopback."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from contracts.errors import InputInvalid, RequestConflict, UnknownName
from contracts.times import iso
from serving.client import Client
from serving.revision import source_revision

ROOT = Path(__file__).resolve().parents[2]
SERIES = {"items": [{"sku": "milk", "location": "north"}], "request_id": "over-http"}


@pytest.fixture
def bentoml_home(tmp_path):
    nothing = {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}
    return os.environ | nothing | {"BENTOML_HOME": str(tmp_path / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"}


@pytest.fixture
def address(port, bentoml_home, tmp_path):
    """A served bento; ended by its own process group."""
    build = [sys.executable, "-m", "bentoml", "build", "--output", "tag"]
    subprocess.run(build, cwd=ROOT, env=bentoml_home, check=True, capture_output=True, timeout=120)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    env = bentoml_home | {
        "SEATRIAL_HOME": str(port.settings.home),
        "SEATRIAL_CLOCK": iso(port.clock.now()),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "bentoml", "serve", "seatrial:latest", "--port", str(number)]
    with (tmp_path / "served.log").open("wb") as output:
        served = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=output, stderr=output, start_new_session=True)
        try:
            client, deadline = Client(f"http://127.0.0.1:{number}"), time.monotonic() + 90
            while not client.ready():
                assert served.poll() is None, (tmp_path / "served.log").read_text()[-2000:]
                assert time.monotonic() < deadline, (tmp_path / "served.log").read_text()[-2000:]
                time.sleep(0.2)
            yield f"http://127.0.0.1:{number}"
        finally:
            os.killpg(served.pid, signal.SIGTERM)
            served.wait(timeout=30)


@pytest.mark.slow
def test_served_bento_answers_like_the_handler(address, port, handler, shipment, bentoml_home):
    """Over HTTP the bento gives the handler's own numbers, from its own sources of the same revision; and swaps."""
    client = Client(address)
    theirs = client.ask("demand", "forecast", SERIES)["decisions"][0]
    ours = handler.forecast("demand", SERIES | {"request_id": "inside"})[0]
    record = client.decision(theirs["decision_id"])
    assert record["answer"] == ours.answer.model_dump(mode="json")
    (source,) = Path(bentoml_home["BENTOML_HOME"]).glob("bentos/seatrial/*/src")
    assert record["code_revision"] == ours.code_revision == source_revision(source)
    risk = client.ask("late_delivery", "score", {"items": [shipment()]})["decisions"][0]
    inside = handler.score("late_delivery", {"items": [shipment()]})[0]
    assert risk["probability"] == inside.answer.probability
    with pytest.raises(RequestConflict):
        client.ask("demand", "forecast", SERIES | {"horizon": 2})
    with pytest.raises(InputInvalid, match="sku"):
        client.ask("demand", "forecast", {"items": [{"location": "north"}]})
    with pytest.raises(UnknownName):
        client.decision("0" * 32)
    metrics = urllib.request.urlopen(f"{address}/metrics").read().decode()
    assert "seatrial_decisions_total" in metrics
    assert json.loads(urllib.request.urlopen(f"{address}/openapi.json").read())["openapi"] == "3.1.0"
    port.deploy("demand", "v2")
    deadline = time.monotonic() + 20
    while client.ask("demand", "forecast", {"items": SERIES["items"]})["decisions"][0]["version"] != "v2":
        assert time.monotonic() < deadline
        time.sleep(0.1)
