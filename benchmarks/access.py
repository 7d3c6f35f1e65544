"""What knowing who asks costs a request, on the workspace that `make demo` left: no guard, open, key, token.

Whole requests through the app in one process (scope in, answer out), in turn, medians of CPU time.
Run: `python -m benchmarks.access` (after `make demo`); writes its section of docs/access.md.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from benchmarks.lifecycle import borrowed_workspace
from benchmarks.measure import write_section
from contracts.settings import Settings
from contracts.times import SystemClock
from registry.access import Role, local
from registry.access_file import AccessFile
from registry.keys import KeyRing, Wish
from registry.ledger import MemoryLedger
from serving.app import make_app
from serving.authenticate import Authenticator
from serving.guard import PRINCIPAL
from serving.handler import DecisionHandler
from serving.jwks import KeyFile
from serving.jwt_tokens import Tokens, read_keys

ROUNDS, REQUESTS, TOKENS = 15, 200, 200
OUTPUT = Path(__file__).parents[1] / "docs" / "access.md"
Case = tuple[Any, str, bool]


def signed(key: Any, now: datetime, number: int = 0) -> str:
    """A caller's token."""
    claims = {"iss": "https://issuer.example", "aud": "seatrial", "sub": "erp", "roles": ["caller"], "n": number}
    times = {"iat": int(now.timestamp()), "exp": int((now + timedelta(hours=1)).timestamp())}
    return jwt.encode({**claims, **times, "seatrial_models": ["*"]}, key, "ES256", headers={"kid": "e1"})


def request(path: str, body: bytes, credential: str, admitted: bool) -> dict[str, Any]:
    """An ASGI scope; `admitted`: as if a guard had let it in before, so that none looks at it."""
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(b"authorization", b"Bearer " + credential.encode())] if credential else []
    scope: dict[str, Any] = {"type": "http", "http_version": "1.1", "scheme": "http", "method": "POST", "path": path}
    scope |= {"headers": headers, "query_string": b"", "server": ("127.0.0.1", 3000)}
    return scope | ({PRINCIPAL: local("bench")} if admitted else {})


async def cpu_us(case: Case, path: str, body: bytes, count: int) -> float:
    """CPU microseconds of one request."""
    app, credential, admitted = case
    status: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        status.append(message.get("status", 200))

    began = time.process_time()
    for _ in range(count):
        await app(request(path, body, credential, admitted), receive, send)
    if set(status) != {200}:
        sys.exit(f"{path} answered {sorted(set(status))}")
    return (time.process_time() - began) / count * 1e6


async def measured(cases: dict[str, Case], path: str, body: bytes) -> dict[str, float]:
    """Median CPU microseconds of a request by case; the cases take turns, every other round backwards."""
    found: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(ROUNDS + 1):
        for name in list(cases)[:: 1 if number % 2 else -1]:
            taken = await cpu_us(cases[name], path, body, REQUESTS)
            if number:
                found[name].append(taken)
    return {name: statistics.median(taken) for name, taken in found.items()}


def cases_of(handler: DecisionHandler, folder: Path) -> tuple[dict[str, Case], Tokens, Any]:
    """The app without a guard's work, open, with a key out of fifty, and with a token seen before."""
    clock, signer = SystemClock(), ec.generate_private_key(ec.SECP256R1())
    ring = KeyRing(MemoryLedger(), folder / "access.json", clock, "bench", required=False)
    until = clock.now() + timedelta(days=1)
    keys = [ring.issue(Wish(f"erp-{n}", (Role.CALLER,), None, (), until), "bench").text for n in range(50)]
    public = {**ECAlgorithm.to_jwk(signer.public_key(), as_dict=True), "kid": "e1"}
    (folder / "jwks.json").write_text(json.dumps({"keys": [public]}))
    source = KeyFile(folder / "jwks.json", read_keys, clock)
    tokens = Tokens("https://issuer.example", "seatrial", source, clock)
    known = Authenticator(AccessFile(folder / "access.json").current, tokens, clock)
    free = make_app(lambda: handler, background=False, access=lambda: None)
    closed = make_app(lambda: handler, background=False, access=lambda: known)
    cases: dict[str, Case] = {
        "no guard": (free, "", True),
        "access open": (free, "", False),
        "API key": (closed, keys[25], False),
        "token seen before": (closed, signed(signer, clock.now()), False),
    }
    return cases, tokens, signer


def main() -> None:
    """Measure and write."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ws = borrowed_workspace(Settings().home, folder)
        handler, lines = (
            ws.handler,
            ["| request | no guard | access open | API key | token seen before |", "|---|---|---|---|---|"],
        )
        shipment = {"shipment_id": "S1", "carrier": "AA", "origin": "JFK", "destination": "LAX"}
        times = {"promised_at": (ws.clock.now() + timedelta(hours=9)).isoformat()}
        bodies = {
            "/v1/demand/forecast": {"items": [{"sku": "milk", "location": "north"}]},
            "/v1/late-delivery/score": {"items": [{**shipment, **times}]},
        }
        cases, tokens, signer = cases_of(handler, folder)
        for path, body in bodies.items():
            taken = asyncio.run(measured(cases, path, json.dumps(body).encode()))
            least = taken["no guard"]
            told = [f"{least:.0f} us"] + [f"{us - least:+.0f} us ({us / least:.3f})" for us in list(taken.values())[1:]]
            lines.append(f"| `{path}` | " + " | ".join(told) + " |")
        many = [signed(signer, SystemClock().now(), number) for number in range(TOKENS)]
        began = time.process_time()
        for token in many:
            tokens.principal(token)
        first = (time.process_time() - began) / TOKENS * 1e6
        ws.handler.close()
    lines += ["", f"A token that was not seen before costs {first:.0f} us once (ES256 signature and claims)."]
    write_section(OUTPUT, "access", "\n".join(lines))
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
