"""Fault 51: somebody does what their role does not allow, looks at another's model, or brings rights along."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from contracts.decisions import Answer, DecisionRecord, Rung
from contracts.decisions import Route as Taken
from contracts.errors import Forbidden, UnknownName
from contracts.settings import Settings
from contracts.times import SetClock
from lifecycle.commands import app as commands
from lifecycle.commands.roles import COMMANDS, About, admit, commands_of
from registry.access import Principal, Role
from registry.access_file import AccessFile
from registry.keys import KeyRing, Wish
from registry.ledger import MemoryLedger
from serving.app import Limits, make_app
from serving.authenticate import Authenticator
from serving.doors import DOORS
from serving.handler import DecisionHandler
from serving.wiring import handler_from

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 3, 4, 6, 0, tzinfo=UTC)
SERIES = {"items": [{"sku": "milk", "location": "north"}]}
Key = Callable[..., dict[str, str]]

# Written out by hand, so that a slip in the program's own tables is seen.
OPENS = {
    Role.VIEWER: {"decision", "metrics"},
    Role.TRAINER: {"decision", "metrics"},
    Role.APPROVER: {"decision", "metrics"},
    Role.PROMOTER: {"decision", "metrics"},
    Role.ADMIN: {"decision", "metrics", "forecast", "score", "outcomes"},
    Role.CALLER: {"forecast", "score", "outcomes"},
}
EVERYBODY = {"live", "ready", "schema"}
LEADS_TO = {
    Role.VIEWER: {Role.VIEWER},
    Role.TRAINER: {Role.TRAINER, Role.VIEWER},
    Role.APPROVER: {Role.APPROVER, Role.VIEWER},
    Role.PROMOTER: {Role.PROMOTER, Role.VIEWER},
    Role.ADMIN: set(Role),
    Role.CALLER: {Role.CALLER},
}


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    return KeyRing(MemoryLedger(), tmp_path / "access.json", SetClock(NOW), "ann", required=False)


@pytest.fixture
def handler(tmp_path: Path) -> Iterator[DecisionHandler]:
    """A handler with nothing in service, and one decision of each of two models in its log."""
    made = handler_from(Settings(home=tmp_path, features=ROOT / "features" / "repo"), SetClock(NOW))
    for number, model in enumerate(("late_delivery", "stockout"), start=1):
        made.log.append(decided(model, f"{number:032x}"))
    yield made
    made.close()


def decided(model: str, name: str) -> DecisionRecord:
    """A risk decision as it stands in the log."""
    return DecisionRecord(
        decision_id=name,
        request_id=f"r-{model}",
        request_hash="h",
        model=model,
        kind="risk",
        as_of=NOW,
        subject={"carrier": "A"},
        request={"shipment_id": f"S-{model}", "carrier": "A"},
        views=(),
        route=Taken(arm="none", version=None, key="k", bucket=0.0, share=0.0, reason="none", revision=1),
        answer=Answer(rung=Rung.REFUSE),
        manifest_sha256=None,
        features_hash="f",
        policy_hash="p",
        code_revision="c",
    )


@pytest.fixture
def app(tmp_path: Path, ring: KeyRing, handler: DecisionHandler) -> Any:
    access = Authenticator(AccessFile(tmp_path / "access.json", every_s=0).current, None, SetClock(NOW))
    return make_app(lambda: handler, Limits(refresh_s=60), access=lambda: access)


@pytest.fixture
def http(app: Any) -> Iterator[TestClient]:
    with TestClient(app, raise_server_exceptions=False) as made:
        yield made


@pytest.fixture
def key(ring: KeyRing) -> Key:
    """Issues a key; gives the header of a request with it."""

    def issue(*roles: Role, models: tuple[str, ...] | None = None) -> dict[str, str]:
        made = ring.issue(Wish("eve", roles, models, (), NOW + timedelta(days=1)), "for a test")
        return {"authorization": f"Bearer {made.text}"}

    return issue


def outcome(**item: Any) -> dict[str, Any]:
    return {"items": [{"late": True, "occurred_at": "2026-03-04T05:00:00Z", **item}]}


def test_every_role_at_every_route(http: TestClient, key: Key, record_property: Callable[..., None]) -> None:
    """A route answers whom its role lets in, is 403 for all others and 401 without a key; open routes are open."""
    wrong = []
    for role in Role:
        headers = key(role)
        for door in DOORS:
            path = door.path.format(slug="nowhere", wanted="0" * 32)
            sent = {"json": SERIES} if door.method == "POST" else {}
            answer = http.request(door.method, path, headers=headers, **sent)
            bare = http.request(door.method, path, **sent)
            let_in = door.answers in OPENS[role] | EVERYBODY
            if (answer.status_code == 403) == let_in or (bare.status_code == 401) == (door.answers in EVERYBODY):
                wrong.append((role, door.path, answer.status_code, bare.status_code))
    assert wrong == []
    record_property("figure: role x route pairs", len(Role) * len(DOORS))


def test_every_role_at_every_command(record_property: Callable[..., None]) -> None:
    """A command runs for whoever's roles lead to the one it needs, and is refused for all others."""
    wrong = []
    for role, (path, needs) in itertools.product(Role, COMMANDS.items()):
        who = Principal("eve", (role,))
        allowed = needs.role is None or needs.role in LEADS_TO[role]
        try:
            admit(who, path, needs, {"model": "demand"})
            passed = True
        except Forbidden:
            passed = False
        if passed != allowed:
            wrong.append((role, path))
    assert wrong == []
    record_property("figure: role x command pairs", len(Role) * len(COMMANDS))


def test_who_is_limited_to_a_model_stays_with_it() -> None:
    """For a command another model does not exist, and what is about every model is refused, also issuing keys."""
    who = Principal("eve", (Role.ADMIN,), ("demand",))
    for path, needs in COMMANDS.items():
        if needs.about is About.NAMED:
            admit(who, path, needs, {"model": "demand"})
            with pytest.raises(UnknownName, match="unknown model 'late-delivery'"):
                admit(who, path, needs, {"model": "late-delivery"})
        if needs.about is not About.NONE:
            with pytest.raises(Forbidden, match="of every model"):
                admit(who, path, needs, {"model": None} if needs.about is About.NAMED else {})


def test_another_models_decision_is_not_there(http: TestClient, key: Key) -> None:
    """Reading it, and posting an outcome for it, gets the very answer of a decision that never was."""
    mine, both = key(Role.VIEWER, Role.CALLER, models=("stockout",)), key(Role.VIEWER, Role.CALLER)
    theirs, none = f"{1:032x}", f"{9:032x}"
    assert http.get(f"/v1/decisions/{theirs}", headers=both).status_code == 200
    assert http.get(f"/v1/decisions/{2:032x}", headers=mine).status_code == 200
    hidden, unknown = (http.get(f"/v1/decisions/{wanted}", headers=mine) for wanted in (theirs, none))
    assert (hidden.status_code, hidden.content) == (404, unknown.content)
    posted = [http.post("/v1/outcomes", json=outcome(decision_id=wanted), headers=mine) for wanted in (theirs, none)]
    assert [answer.status_code for answer in posted] == [422, 422]
    assert posted[0].content == posted[1].content
    assert http.post("/v1/outcomes", json=outcome(decision_id=f"{2:032x}"), headers=mine).status_code == 202


def test_a_shipment_belongs_to_no_model(http: TestClient, key: Key) -> None:
    """Its outcome teaches every model: only a key for all of them posts one without naming a decision."""
    limited, free = key(Role.CALLER, models=("stockout",)), key(Role.CALLER)
    refused = http.post("/v1/outcomes", json=outcome(shipment_id="S1"), headers=limited)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "items.0.decision_id")
    assert http.post("/v1/outcomes", json=outcome(shipment_id="S1"), headers=free).status_code == 202


def test_another_model_looks_as_if_it_did_not_exist(http: TestClient, key: Key, handler: DecisionHandler) -> None:
    """A model in trouble is 503 for those who may see it, and the 404 of an unknown one for all others."""
    handler.models.problems["demand"] = "its files are gone"
    mine, theirs = key(Role.CALLER, models=("stockout",)), key(Role.CALLER, models=("demand",))
    assert http.post("/v1/demand/forecast", json=SERIES, headers=theirs).status_code == 503
    for body in (SERIES, {"items": []}, {"items": [], "extra": 1}):
        hidden, unknown = (http.post(f"/v1/{slug}/forecast", json=body, headers=mine) for slug in ("demand", "nothing"))
        assert (hidden.status_code, hidden.content) == (unknown.status_code, unknown.content)
    viewer = key(Role.VIEWER, models=("demand",))
    assert http.get("/metrics", headers=viewer).status_code == 403
    assert http.get("/readyz").json() == {"ready": False}


def test_rights_cannot_be_brought_along(http: TestClient, key: Key) -> None:
    """Roles, names and models in bodies are unknown fields; in headers and the query they change nothing."""
    caller = key(Role.CALLER, models=("stockout",))
    for field in ("role", "roles", "actor", "principal", "owner", "model", "models", "approved", "version", "share"):
        for body in ({**SERIES, field: "admin"}, {"items": [{**SERIES["items"][0], field: "admin"}]}):
            assert http.post("/v1/demand/forecast", json=body, headers=caller).status_code == 422
        assert (
            http.post("/v1/outcomes", json={**outcome(shipment_id="S1"), field: "x"}, headers=caller).status_code == 422
        )
    claimed = {"x-role": "admin", "x-user": "ann", "x-forwarded-user": "ann", "seatrial.principal": "ann"}
    assert http.get("/metrics?role=admin", headers={**caller, **claimed}).status_code == 403
    assert http.get("/metrics", headers=claimed).status_code == 401


def test_a_route_that_nobody_declared_cannot_be_reached(app: Any, key: Key) -> None:
    """Every route is a door with a role or openly without; one that is added beside them is 404, also for an admin."""
    declared = {(door.path, door.method) for door in DOORS}
    assert {(route.path, method) for route in app.routes for method in route.methods - {"HEAD"}} == declared
    assert {door.answers for door in DOORS if door.role is None} == EVERYBODY

    async def leak(_: Any) -> PlainTextResponse:
        return PlainTextResponse("everything")

    app.router.routes += [
        Route("/v1/everything", leak),
        Route("/v1/outcomes", leak, methods=["GET", "DELETE"]),
        Route("/{path:path}", leak),
    ]
    with TestClient(app) as http:
        admin = key(Role.ADMIN)
        assert http.get("/v1/everything", headers=admin).status_code == 404
        assert http.get("/metrics/", headers=admin).status_code == 404
        for method in ("GET", "DELETE"):
            assert http.request(method, "/v1/outcomes", headers=admin).status_code == 405


def test_a_command_that_nobody_declared_cannot_be_run() -> None:
    """Every command of the program is in the table, the table holds nothing else, and what it lacks is refused."""
    known = dict(commands_of(typer.main.get_command(commands)))
    assert set(known) == set(COMMANDS)
    with pytest.raises(Forbidden, match="not declared"):
        admit(Principal("ann", (Role.ADMIN,)), "rollout force", None, {})


def test_open_access_stays_on_loopback(tmp_path: Path, handler: DecisionHandler) -> None:
    """Without access control a request that came in over an address of the network is refused, on loopback answered."""
    made = make_app(lambda: handler, Limits(refresh_s=60), access=lambda: None)
    for address, status in (("http://127.0.0.1", 200), ("http://[::1]", 200), ("http://10.0.0.7", 403)):
        with TestClient(made, base_url=address) as http:
            assert http.get("/livez").status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:3000"}, 200),
        ({"host": "[::1]:3000"}, 200),
        ({"x-forwarded-for": "203.0.113.9"}, 403),
        ({"forwarded": "for=203.0.113.9"}, 403),
        ({"via": "1.1 proxy"}, 403),
        ({"host": "planner.example.org"}, 403),
        ({"host": "127.0.0.1.example.org:3000"}, 403),
    ],
)
def test_open_access_is_not_for_proxies_and_foreign_names(
    handler: DecisionHandler, headers: dict[str, str], status: int
) -> None:
    """On loopback, but for a proxy's client or a web page whose name points here: refused while access is open."""
    made = make_app(lambda: handler, Limits(refresh_s=60), access=lambda: None)
    with TestClient(made, base_url="http://127.0.0.1") as http:
        assert http.get("/livez", headers=headers).status_code == status
