"""Fault 8: the network fails around COMMIT; was it done or not? Asking again gives one row either way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import func, make_url, select

from contracts.errors import DependencyDown
from contracts.rollout import RowKind
from registry.ledger import RowDraft, verify
from registry.sql_ledger import SqlLedger
from registry.sql_tables import OUTBOX
from tests.postgres_cluster import Cluster
from tests.registry.rig import MODEL, World
from tests.tcp_proxy import TcpProxy

EXECUTE = b"E\0\0\0\x09\0"
START = datetime(2026, 1, 1, tzinfo=UTC)


def _draft(number: int) -> RowDraft:
    return RowDraft("demand", RowKind.RETRAIN_REQUESTED, "v1", START, "ann", "because", f"q{number}")


class AtCommit:
    """Says True for the piece in which a client has its COMMIT executed: the driver first has it parsed."""

    def __init__(self) -> None:
        self._parsed = False

    def __call__(self, piece: bytes) -> bool:
        executes = self._parsed and EXECUTE in piece
        self._parsed = (self._parsed and not executes) or b"commit\0" in piece.lower()
        return executes


@contextmanager
def _through_proxy(postgres: Cluster) -> Iterator[tuple[TcpProxy, SqlLedger, SqlLedger]]:
    """A proxy, a ledger behind it that holds one row, and the same ledger without the proxy."""
    url = make_url(postgres.database())
    with TcpProxy("127.0.0.1", postgres.port) as proxy:
        ledger = SqlLedger(url.set(port=proxy.port).render_as_string(), busy_timeout=0.5)
        ledger.append(_draft(1), 0)
        yield proxy, ledger, SqlLedger(url.render_as_string())
        ledger.close()


def _drop_the_reply(proxy: TcpProxy) -> None:
    proxy.drop_reply = AtCommit()


def _answer_half(proxy: TcpProxy) -> None:
    proxy.truncate = 3


def _say_nothing(proxy: TcpProxy) -> None:
    proxy.stall = True


def _hang_up(proxy: TcpProxy) -> None:
    proxy.cut_after = 0


BREAK: dict[str, Callable[[TcpProxy], None]] = {
    "reply to COMMIT dropped": _drop_the_reply,
    "answers cut in half": _answer_half,
    "server says nothing": _say_nothing,
    "connection cut": _hang_up,
}


@pytest.mark.parametrize("how", BREAK)
def test_asking_again_gives_one_row(postgres: Cluster, how: str) -> None:
    """The writer is told that the ledger does not answer; its wish repeated is one row and one event in the end."""
    with _through_proxy(postgres) as (proxy, ledger, direct):
        BREAK[how](proxy)
        with pytest.raises(DependencyDown, match="ledger is not available"):
            ledger.append(_draft(2), 1)
        committed = len(direct.rows("demand")) == 2
        assert committed or how != "reply to COMMIT dropped", "the row was to be there, though nobody was told"
        proxy.drop_reply, proxy.truncate, proxy.stall, proxy.cut_after = lambda _: False, None, False, None
        row = ledger.append(_draft(2), 1)
        assert (row.revision, direct.rows("demand")[1:]) == (2, (row,))
        verify(direct.rows("demand"))
        with direct.engine.connect() as connection:
            assert connection.execute(select(func.count()).select_from(OUTBOX)).scalar() == 2


def test_a_promotion_whose_commit_was_not_acknowledged_is_finished_by_asking_again(
    postgres: Cluster, tmp_path: Path
) -> None:
    """The promoted row is there, the snapshot is not; the same action again makes no second row and completes."""
    url = make_url(postgres.database())
    with TcpProxy("127.0.0.1", postgres.port) as proxy:
        world = World(tmp_path, ledger=SqlLedger(url.set(port=proxy.port).render_as_string(), busy_timeout=1.0))
        version = world.register("first")
        proxy.drop_reply = AtCommit()
        with pytest.raises(DependencyDown):
            world.advance()
        proxy.drop_reply = lambda _: False
        world.registrar.reconcile(MODEL, world.policy)
        promoted = [row for row in world.ledger.rows(MODEL) if row.kind is RowKind.PROMOTED]
        assert (world.state.champion, len(promoted), proxy.dropped) == (version, 1, 1)
        verify(world.ledger.rows(MODEL))
