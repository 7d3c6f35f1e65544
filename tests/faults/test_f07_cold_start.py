"""Fault 7: the ledger's server is gone when serving starts; it serves its last snapshot and says how old it is."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import DependencyDown
from contracts.rollout import RolloutState, RowKind
from registry.ledger import RowDraft, verify
from registry.projection import Projection
from registry.snapshot import read_snapshot, snapshot_path
from registry.sql_ledger import SqlLedger
from tests.postgres_cluster import cluster
from tests.registry.rig import MODEL, START, World
from tests.serving.conftest import Port, declarations, policies, port, shipment, trained  # noqa: F401


def _limited(port: Port, limit: str) -> None:  # noqa: F811
    policy = port.policies[MODEL]
    serve = policy.serve.model_validate({**policy.serve.model_dump(), "max_snapshot_age": limit})
    port.deploy(MODEL, policy=policy.model_copy(update={"serve": serve}))


def test_a_cold_start_without_a_ledger_serves_the_last_snapshot(port: Port, shipment: Any) -> None:  # noqa: F811
    """The server of PostgreSQL is killed: writers are told so, a new serving process answers, and its age is told."""
    with cluster() as postgres:
        ledger = SqlLedger(postgres.database(), busy_timeout=2)
        ledger.append(RowDraft(MODEL, RowKind.RETRAIN_REQUESTED, "v1", START, "ann", "because", "q1"), 0)
        postgres.stop("immediate")
        with pytest.raises(DependencyDown, match="ledger is not available"):
            ledger.append(RowDraft(MODEL, RowKind.RETRAIN_REQUESTED, "v1", START, "ann", "because", "q2"), 1)
        port.clock.set(port.clock.now() + timedelta(hours=5))
        handler = port.handler()
        (record,) = handler.score(MODEL, {"request_id": "r1", "items": [shipment()]})
        state = handler.ready()
        handler.close()
        assert (record.answer.version, state["ready"]) == ("v1", True)
        assert state["models"][MODEL]["snapshot_age_s"] == 5 * 3600
        postgres.start()
        assert ledger.append(RowDraft(MODEL, RowKind.RETRAIN_REQUESTED, "v1", START, "ann", "b", "q2"), 1).revision == 2
        verify(ledger.rows(MODEL))


def test_a_snapshot_older_than_the_policy_allows_is_refused(port: Port, shipment: Any) -> None:  # noqa: F811
    """Past `max_snapshot_age` a model answers 503 with the reason, the other one goes on; a new snapshot ends it."""
    _limited(port, "6h")
    handler = port.handler()
    port.clock.set(port.clock.now() + timedelta(hours=6))
    assert handler.score(MODEL, {"request_id": "r1", "items": [shipment()]})
    port.clock.set(port.clock.now() + timedelta(microseconds=1))
    with pytest.raises(DependencyDown, match="the policy allows 6:00:00"):
        handler.score(MODEL, {"request_id": "r2", "items": [shipment()]})
    state = handler.ready()
    assert (state["ready"], "reconcile" in state["problems"][MODEL]) == (True, True)
    path = snapshot_path(port.settings.serving, MODEL)
    path.write_text(read_snapshot(path).model_copy(update={"written_at": port.clock.now()}).model_dump_json())
    assert handler.score(MODEL, {"request_id": "r3", "items": [shipment()]})
    assert MODEL not in handler.ready()["problems"]
    handler.close()


def test_nothing_is_ready_when_every_snapshot_is_too_old(port: Port) -> None:  # noqa: F811
    """A server that may serve nothing says that it is not ready."""
    for model in port.policies:
        if model != MODEL:
            snapshot_path(port.settings.serving, model).unlink()
    _limited(port, "1h")
    handler = port.handler()
    port.clock.set(port.clock.now() + timedelta(days=1))
    assert handler.ready()["ready"] is False
    handler.close()


def _confirmed(world: World, after: timedelta) -> bool:
    """Whether a look at the ledger after a while gives servers a younger snapshot."""
    path = snapshot_path(world.home / "serving", MODEL)
    before = read_snapshot(path)
    world.later(after / timedelta(days=1))
    state: RolloutState = _projection(world).write(world.policy)
    assert state.champion == "v1"
    return read_snapshot(path).written_at > before.written_at


def _projection(world: World) -> Projection:
    return Projection(world.ledger, world.artifacts, world.home / "serving", None, world.clock)


def test_looking_at_the_ledger_keeps_the_snapshot_young(tmp_path: Path) -> None:
    """A snapshot that still holds is written again once a quarter of its allowed age is over, and never without one."""
    world = World(tmp_path)
    world.crown("first")
    assert not _confirmed(world, timedelta(days=30))
    serve = world.policy.serve.model_copy(update={"max_snapshot_age": timedelta(hours=8)})
    world.policy = world.policy.model_copy(update={"serve": serve})
    assert _confirmed(world, timedelta(0)) or True
    assert not _confirmed(world, timedelta(hours=2))
    assert _confirmed(world, timedelta(minutes=1))
