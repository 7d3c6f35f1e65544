"""Bad input over HTTP: 422 as problem+json with the field's name, never a 500, nothing raw repeated or kept."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from serving.app import Limits, make_app

SHIPMENT = (
    '{"shipment_id": "S1", "carrier": "A", "origin": "B", "destination": "C", "promised_at": "2026-03-04T12:00:00Z"%s}'
)
TEN_DEEP = '{"x": ' * 10 + "1" + "}" * 10

BAD_SHIPMENTS = [
    ('"distance_km": NaN', "items.0.distance_km"),
    ('"distance_km": Infinity', "items.0.distance_km"),
    ('"distance_km": -Infinity', "items.0.distance_km"),
    ('"distance_km": 1e308', "items.0.distance_km"),
    ('"distance_km": 1e400', "items.0.distance_km"),
    ('"distance_km": -0.0', "items.0.distance_km"),
    ('"distance_km": -1', "items.0.distance_km"),
    ('"distance_km": true', "items.0.distance_km"),
    ('"distance_km": "12"', "items.0.distance_km"),
    ('"distance_km": 12345678901234567890123456', "items.0.distance_km"),
    ('"distance_km": %s' % ("9" * 5000), "(body)"),
    ('"distance_km": 1, "distance_km": 2', "distance_km"),
    ('"mode": "a\\u0000b"', "items.0.mode"),
    ('"mode": "\\ud800"', "items.0.mode"),
    ('"mode": "\\u202egnp.exe"', "items.0.mode"),
    ('"mode": ""', "items.0.mode"),
    ('"mode": " air"', "items.0.mode"),
    ('"mode": "%s"' % ("x" * 201), "items.0.mode"),
    ('"mode": 5', "items.0.mode"),
    (f'"extra": {TEN_DEEP}', "items.0.extra"),
    ('"\\ud800": 1', "items.0"),
    ('"scheduled_at": "2026-03-04T12:00:00"', "items.0.scheduled_at"),
    ('"scheduled_at": 1772600000', "items.0.scheduled_at"),
    ('"scheduled_at": "9999-12-31T23:59:59-05:00"', "items.0.scheduled_at"),
    ('"scheduled_at": "0001-01-01T00:00:00+05:00"', "items.0.scheduled_at"),
    ('"scheduled_at": "2026-02-30T00:00:00Z"', "items.0.scheduled_at"),
]
BAD_BODIES = [
    (b"", "(body)"),
    (b"{", "(body)"),
    (b"[]", "(body)"),
    (b"null", "(body)"),
    (b"\xff\xfe{\x00}\x00", "(body)"),
    (b"[" * 100_000, "(body)"),
    (b'{"items": []}', "items"),
    (b'{"items": {}}', "items"),
    (b"{}", "items"),
    (b'{"items": [null]}', "items.0"),
    (b'{"items": [{}], "request_id": "a b"}', "items.0.shipment_id"),
    (b'{"request_id": "../../etc", "items": [{}]}', "request_id"),
]


@pytest.fixture
def http(handler):
    with TestClient(make_app(lambda: handler, Limits(refresh_s=60)), raise_server_exceptions=False) as made:
        yield made


def post(http, body, path="/v1/late-delivery/score"):
    return http.post(path, content=body, headers={"content-type": "application/json"})


@pytest.mark.parametrize(("field", "named"), BAD_SHIPMENTS, ids=range(len(BAD_SHIPMENTS)))
def test_f29_bad_field_is_named(http, handler, field, named):
    """Each bad value gives 422 with its field, and no decision."""
    answer = post(http, '{"items": [%s]}' % (SHIPMENT % f", {field}"))
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert named in [error["field"] for error in answer.json()["errors"]]
    assert len(handler.log) == 0


@pytest.mark.parametrize(("body", "named"), BAD_BODIES, ids=range(len(BAD_BODIES)))
def test_f29_bad_body_is_named(http, body, named):
    """Bodies that are no request at all give 422 too."""
    answer = post(http, body)
    assert answer.status_code == 422
    assert named in [error["field"] for error in answer.json()["errors"]]


def test_f29_right_to_left_letters_are_only_letters(http):
    """A name in Hebrew or Arabic letters is a name: it gets an answer, flagged for want of history."""
    item = {**json.loads(SHIPMENT % ""), "destination": "\u05d7\u05d9\u05e4\u05d4"}
    answer = post(http, json.dumps({"items": [item]}))
    assert answer.status_code == 200
    assert answer.json()["decisions"][0]["degraded"]


def test_f29_nothing_raw_is_repeated_or_logged(http, caplog, capsys):
    """A secret in a bad request appears neither in the answer nor in any log."""
    answer = post(http, '{"items": [%s]}' % (SHIPMENT % ', "distance_km": "hunter2-secret", "mode": "hunter2\\u0000"'))
    shown = capsys.readouterr()
    assert answer.status_code == 422
    assert "hunter2" not in answer.text + caplog.text + shown.out + shown.err


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
names = st.sampled_from(["shipment_id", "carrier", "origin", "destination", "promised_at", "distance_km", "x"])


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(item=st.dictionaries(names, json_values, max_size=7), more=st.dictionaries(st.text(max_size=9), json_values))
def test_f29_any_json_gives_an_answer_or_422(http, item, more):
    """Whatever JSON comes, the status is 200 or 422; never a 500."""
    good = json.loads(SHIPMENT % "")
    answer = post(http, json.dumps({"items": [{**good, **item}], **more}))
    assert answer.status_code in (200, 422)
