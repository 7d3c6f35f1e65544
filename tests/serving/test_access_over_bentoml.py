"""The guard before the whole BentoML service: what BentoML answers by itself is behind it too."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from datetime import timedelta
from typing import Any

import pytest

from contracts.errors import Forbidden, Unauthenticated, UnknownName
from contracts.times import SystemClock
from lifecycle.http_check import running_service
from registry.access import Role
from registry.access_file import LOOK_EVERY_S
from registry.keys import KeyRing, Wish
from registry.ledger import MemoryLedger
from serving.client import Client

SERIES = {"items": [{"sku": "milk", "location": "north"}]}


def status(address: str, path: str, key: str = "") -> tuple[int, bytes]:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(address + path, headers=headers)) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.mark.slow
def test_bentoml_with_access_required(port: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers, records and both metrics need a key of the right role; a revocation reaches the running service."""
    now = SystemClock().now()
    ring = KeyRing(MemoryLedger(), port.settings.access_file, SystemClock(), "ann", required=False)
    keys = {
        role: ring.issue(Wish(role.value, (role,), models, (), now + timedelta(days=1)), "for a test")
        for role, models in ((Role.VIEWER, None), (Role.CALLER, ("demand",)))
    }
    viewer, caller = keys[Role.VIEWER].text, keys[Role.CALLER].text
    monkeypatch.setenv("SEATRIAL_ACCESS", "required")
    with running_service(port.settings, port.clock.now()) as address:
        with pytest.raises(Unauthenticated):
            Client(address).ask("demand", "forecast", SERIES)
        asking, looking = Client(address, key=caller), Client(address, key=viewer)
        answer = asking.ask("demand", "forecast", SERIES)["decisions"][0]
        assert looking.decision(answer["decision_id"])["model"] == "demand"
        with pytest.raises(Forbidden):
            asking.decision(answer["decision_id"])
        with pytest.raises(UnknownName):
            asking.ask("late_delivery", "forecast", SERIES)
        assert [status(address, "/metrics", key)[0] for key in ("", caller, viewer)] == [401, 403, 200]
        assert b"seatrial_decisions_total" in status(address, "/metrics", viewer)[1]
        opened = ("/livez", "/readyz", "/healthz", "/openapi.json", "/docs.json", "/schema.json", "/")
        assert {path: status(address, path)[0] for path in opened} == dict.fromkeys(opened, 200)
        assert b"v1" not in status(address, "/readyz")[1]
        assert status(address, "/nothing/here")[0] == 404
        security = json.loads(status(address, "/openapi.json")[1])["paths"]["/metrics"]["get"]["security"]
        assert security == [{"bearer": []}]
        ring.revoke(keys[Role.CALLER].entry.prefix, "over")
        time.sleep(2 * LOOK_EVERY_S)
        with pytest.raises(Unauthenticated):
            asking.ask("demand", "forecast", SERIES)
