"""The HTTP face: answers, limits, and errors as problem+json."""

from __future__ import annotations

import asyncio

import pytest
from starlette.testclient import TestClient

from contracts.errors import DependencyDown
from serving.app import Limits, make_app

SERIES = {"items": [{"sku": "milk", "location": "north"}]}


@pytest.fixture
def app(handler):
    return make_app(lambda: handler, Limits(refresh_s=60))


@pytest.fixture
def http(app):
    with TestClient(app, raise_server_exceptions=False) as made:
        yield made


def test_forecast_answer_says_where_it_came_from(http):
    """A good request gets steps, rung, version, freshness, and an id under which the record is found."""
    answer = http.post("/v1/demand/forecast", json={**SERIES, "horizon": 3}).json()
    (decision,) = answer["decisions"]
    assert (decision["rung"], decision["version"], len(decision["steps"])) == ("champion", "v1", 3)
    assert decision["freshness"][0] == {"view": "demand_history", "status": "present", "age_s": 21600.0}
    record = http.get(f"/v1/decisions/{decision['decision_id']}").json()
    assert record["answer"]["steps"] == decision["steps"]


def test_score_answer_is_the_handlers_own(http, handler, shipment):
    """HTTP says what the handler says, over the hyphened name, also for batches that run beside the loop."""
    items = [shipment(number) for number in range(7)]
    answer = http.post("/v1/late-delivery/score", json={"items": items, "request_id": "r1"}).json()
    ours = handler.score("late_delivery", {"items": items, "request_id": "r2"})
    assert [d["probability"] for d in answer["decisions"]] == [r.answer.probability for r in ours]
    assert [d["reasons"] for d in answer["decisions"]] == [list(r.answer.reasons) for r in ours]


def test_same_id_same_answer_other_body_conflict(http):
    """A repeated request is answered from the log; the same id with another body is a 409."""
    first = http.post("/v1/demand/forecast", json={**SERIES, "request_id": "a"})
    again = http.post("/v1/demand/forecast", json={**SERIES, "request_id": "a"})
    other = http.post("/v1/demand/forecast", json={**SERIES, "request_id": "a", "horizon": 2})
    assert first.content == again.content
    assert (other.status_code, other.headers["content-type"]) == (409, "application/problem+json")


@pytest.mark.parametrize("path", ["/nope", "/v1/decisions/" + "0" * 32, "/v1/decisions/%2e%2e%2fx", "/v1/../livez/x"])
def test_unknown_addresses_are_404(http, path):
    """Unknown paths and decisions are 404 as problem+json."""
    answer = http.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


def test_unknown_model_and_wrong_method(http):
    """An unknown model is 404, also when its name tries to leave its folder; a wrong method is 405."""
    for slug in ("demandd", "late-delivery", "%2e%2e%2fdemand", "demand%00"):
        assert http.post(f"/v1/{slug}/forecast", json=SERIES).status_code == 404
    wrong = http.get("/v1/demand/forecast")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert wrong.headers["content-type"] == "application/problem+json"


def test_f37_large_bodies_are_refused_before_parsing(http, handler):
    """A body over a megabyte is 413 by its announced length, and by count when it comes in chunks without one."""
    announced = http.post("/v1/demand/forecast", content=b"x" * 1_048_577, headers={"content-type": "application/json"})
    chunks = (b" " * 65_536 for _ in range(20))
    chunked = http.post("/v1/demand/forecast", content=chunks, headers={"content-type": "application/json"})
    assert [announced.status_code, chunked.status_code] == [413, 413]
    assert len(handler.log) == 0


def test_f37_packed_or_foreign_bodies_are_415(http):
    """Compressed bodies (zip bombs) and other media types are refused unread."""
    packed = {"content-type": "application/json", "content-encoding": "gzip"}
    assert http.post("/v1/demand/forecast", content=b"\x1f\x8b", headers=packed).status_code == 415
    assert http.post("/v1/demand/forecast", content=b"a=1").status_code == 415


def test_f37_too_many_items_are_422(http):
    """A batch of more items than the policy allows is refused with the field's name."""
    answer = http.post("/v1/demand/forecast", json={"items": SERIES["items"] * 1001})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "items"


def test_f37_slow_body_is_408(handler):
    """A body that does not come is given up after its time, while the app goes on."""
    app = make_app(lambda: handler, Limits(body_s=0.05), background=False)
    sent = []

    async def slow():
        await asyncio.sleep(3600)

    async def keep(message):
        sent.append(message)

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/v1/demand/forecast", "headers": headers, "query_string": b""}
    asyncio.run(app({**scope, "http_version": "1.1", "scheme": "http"}, slow, keep))
    assert sent[0]["status"] == 408


def test_outcomes_become_canonical_events_once(http, handler, shipment):
    """An outcome by decision carries its shipment's fields; the same again is taken once; the future is refused."""
    scored = http.post("/v1/late-delivery/score", json={"items": [shipment()]}).json()["decisions"][0]
    item = {"decision_id": scored["decision_id"], "late": True, "delay_minutes": 31.5}
    said = {"items": [{**item, "occurred_at": "2026-03-04T05:00:00Z"}]}
    first, again = (http.post("/v1/outcomes", json=said) for _ in range(2))
    assert [a.json()["outcomes"][0]["already"] for a in (first, again)] == [False, True]
    (event,) = handler.outcomes.segments.read()[0]
    assert (event["shipment_id"], event["carrier"], event["origin"], event["late"]) == ("S1", "A", "B", True)
    early = http.post("/v1/outcomes", json={"items": [{**item, "occurred_at": "2026-04-04T05:00:00Z"}]})
    assert early.json()["errors"][0]["field"] == "items.0.occurred_at"


def test_outcome_needs_exactly_one_name(http):
    """Neither or both of decision and shipment, or an unknown decision, is 422."""
    base = {"late": False, "occurred_at": "2026-03-04T05:00:00Z"}
    for names in ({}, {"decision_id": "0" * 32, "shipment_id": "S1"}, {"decision_id": "0" * 32}):
        assert http.post("/v1/outcomes", json={"items": [{**base, **names}]}).status_code == 422


def test_outcome_events_keep_the_contract(http, handler):
    """The event has exactly the fields of the outcome contract."""
    from contracts.events import event_contract

    item = {"shipment_id": "S9", "carrier": "A", "late": False, "occurred_at": "2026-03-04T05:00:00Z"}
    assert http.post("/v1/outcomes", json={"items": [item]}).status_code == 202
    (event,) = handler.outcomes.segments.read()[0]
    assert set(event) == set(event_contract("outcome").names)


def test_metrics_count_by_rung_and_never_by_caller(http):
    """Series are labelled by model, version and rung; unknown paths and skus make none."""
    http.post("/v1/demand/forecast", json=SERIES)
    http.post("/v1/demand/forecast", json={"items": [{"sku": "unheard-of", "location": "x"}]})
    http.get("/nope1")
    text = http.get("/metrics").text
    assert 'seatrial_decisions_total{arm="champion",model="demand",rung="champion",version="v1"} 1.0' in text
    assert 'rung="refuse"' in text
    assert "unheard-of" not in text
    assert "nope" not in text


def test_openapi_names_every_route_and_resolves(http, app):
    """Every route but the document's own is described, and every reference in it leads somewhere."""
    document = http.get("/openapi.json").json()
    assert set(document["paths"]) | {"/openapi.json"} == {route.path for route in app.routes}
    assert "distance_km" in document["components"]["schemas"]["Shipment"]["properties"]
    text = str(document)
    for name in {part.split("'")[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in document["components"]["schemas"], name


def test_health_and_readiness(http, port, handler):
    """The process lives; it is ready while a model is in service."""
    assert http.get("/livez").status_code == 200
    assert http.get("/readyz").json()["models"]["demand"]["champion"] == "v1"


def test_unwritable_log_is_503_and_nothing_is_given_out(http, handler, monkeypatch):
    """A decision that cannot be put on record is not served."""

    def full(*_):
        raise DependencyDown("decisions log", "no space left on device")

    monkeypatch.setattr(handler.log.segments, "append_json", full)
    answer = http.post("/v1/demand/forecast", json=SERIES)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "steps" not in answer.text
