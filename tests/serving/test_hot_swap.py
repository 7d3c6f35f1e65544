"""Snapshots: taken into service whole, or not at all."""

from __future__ import annotations

import threading

import pytest

from contracts.errors import DependencyDown

SERIES = {"items": [{"sku": "milk", "location": "north"}]}


def version(handler):
    return handler.forecast("demand", SERIES)[0].answer.version


def test_new_snapshot_is_served_at_the_next_request(handler, port):
    """After a promotion the next decision is the new champion's, and says from which revision."""
    assert version(handler) == "v1"
    snapshot = port.deploy("demand", "v2", previous="v1")
    (record,) = handler.forecast("demand", SERIES)
    assert (record.answer.version, record.route.revision) == ("v2", snapshot.revision)


def test_bad_artifact_keeps_the_old_version_and_is_told(handler, port):
    """A champion whose files were changed never serves: the old one goes on, and the problem is told once noticed."""
    port.break_artifact("demand", "v2")
    port.deploy("demand", "v2")
    assert version(handler) == "v1"
    assert "spec.json" in handler.ready()["problems"]["demand"]
    assert b'seatrial_snapshot_problems_total{model="demand"} 1.0' in handler.metrics.text()
    port.deploy("demand", "v3")
    assert version(handler) == "v3"
    assert handler.ready()["problems"] == {}


def test_broken_snapshot_file_keeps_the_old_version(handler, port):
    """A snapshot that is cut short, empty or of another model changes nothing."""
    path = port.settings.serving / "demand.json"
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", whole.replace(b'"model": "demand"', b'"model": "demand2"'), b"[]"):
        path.write_bytes(content)
        assert version(handler) == "v1"
        assert "demand" in handler.ready()["problems"]


def test_cold_start_with_a_bad_champion_goes_down_the_ladder(port):
    """When nothing sound was in service before, the other rungs answer and say why."""
    port.deploy("demand", "v2", previous="v1")
    port.break_artifact("demand", "v2")
    handler = port.handler()
    (record,) = handler.forecast("demand", SERIES)
    assert (record.answer.rung.value, record.answer.version) == ("previous_champion", "v1")
    assert "spec.json" in record.answer.degraded[0]
    handler.close()


def test_damaged_previous_champion_does_not_hold_up_the_new_one(handler, port):
    """The version that only stands by is told about, while its successor goes into service."""
    port.break_artifact("demand", "v3")
    port.deploy("demand", "v2", previous="v3")
    assert version(handler) == "v2"
    assert "demand" in handler.ready()["problems"]


def test_no_snapshot_at_all_is_not_ready(port):
    """Without any snapshot the handler is not ready; with an unreadable one the model is not available."""
    for path in port.settings.serving.glob("*.json"):
        path.unlink()
    handler = port.handler()
    assert not handler.ready()["ready"]
    (port.settings.serving / "demand.json").write_text("{}")
    with pytest.raises(DependencyDown):
        handler.forecast("demand", SERIES)
    handler.close()


def test_swaps_under_load_mix_no_versions_and_lose_no_request(handler, port):
    """While the champion is swapped twenty times, every batch is answered whole by one version and on record."""
    done, wrong = threading.Event(), []

    def ask():
        while not done.is_set():
            records = handler.forecast("demand", {"items": SERIES["items"] * 3})
            if len({(r.answer.version, r.manifest_sha256, r.route.revision) for r in records}) != 1:
                wrong.append(records)

    askers = [threading.Thread(target=ask) for _ in range(2)]
    for asker in askers:
        asker.start()
    for number in range(20):
        port.deploy("demand", f"v{number % 3 + 1}")
        handler.refresh()
    done.set()
    for asker in askers:
        asker.join()
    assert not wrong
    assert len(handler.log) == len(handler.log.segments.read()[0])
