"""The outbox and its dispatcher: order, back-off, dead letters, retry, several at once."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import DependencyDown, LedgerConflict
from contracts.rollout import RowKind
from contracts.times import SetClock
from registry.dispatch import Passed, dispatch, wanted_by
from registry.ledger import RowDraft
from registry.outbox import Sent
from registry.sql_ledger import SqlLedger
from registry.sql_outbox import Delivery, Outbox, State, Wanted
from tests.postgres_cluster import Cluster, postgres  # noqa: F401
from tests.registry.receiver import append, file_target, fill
from tests.registry.rig import MODEL, START

DOWN = Sent(False, "HTTP 503")
LEASE = timedelta(seconds=70)


class Sending:
    """A sender that answers as it is told, by event id or for all, and remembers what it was given."""

    def __init__(self, answer: Sent | None = None) -> None:
        self.default, self.by_revision = answer or Sent(True), dict[int, Sent]()
        self.got: list[tuple[str, int]] = []

    def send(self, event: dict[str, Any], now: datetime) -> Sent:
        """Answer."""
        self.got.append((event["data"]["model"], event["data"]["revision"]))
        return self.by_revision.get(event["data"]["revision"], self.default)

    def close(self) -> None:
        """Nothing to give back."""


class Post:
    """An outbox over a filled ledger, with a clock and one target."""

    def __init__(self, home: Path, models: tuple[str, ...] = (MODEL,), each: int = 3, **change: Any) -> None:
        self.url = fill(home, models, each)
        self.outbox, self.target, self.clock = Outbox(self.url), file_target(**change), SetClock(START)
        self.chance = random.Random(5)

    def send(self, sender: Sending, after: timedelta = timedelta()) -> Passed:
        """One pass, some time later."""
        self.clock.set(self.clock.now() + after)
        return dispatch(self.outbox, self.target, sender, self.clock, self.chance)

    def states(self) -> list[str]:
        """The state of every event, in order."""
        return [d.state.value for d in self.outbox.listing(wanted_by(self.target))]


@pytest.fixture
def post(tmp_path: Path) -> Post:
    """Three events of one model."""
    return Post(tmp_path)


def test_a_row_that_was_refused_leaves_no_event(tmp_path: Path) -> None:
    """Row and event stand in one transaction: an append that loses its race adds neither."""
    ledger = SqlLedger(fill(tmp_path))
    late = RowDraft(MODEL, RowKind.HELD, "v1", START, "ann", "late", "q9", {})
    with pytest.raises(LedgerConflict):
        ledger.append(late, 1)
    assert [d.revision for d in Outbox(fill(tmp_path / "other")).listing(Wanted("erp"))] == [1, 2, 3]
    assert [d.revision for d in Outbox(str(ledger.engine.url)).listing(Wanted("erp"))] == [1, 2, 3]


def test_there_is_nothing_in_the_outbox_of_a_ledger_that_nobody_wrote_to(tmp_path: Path) -> None:
    """Reading makes no tables and finds nothing."""
    outbox = Outbox(f"sqlite:///{tmp_path / 'ledger.db'}")
    assert outbox.listing(Wanted("erp")) == ()
    assert outbox.counts(Wanted("erp")) == {"pending": 0, "delivered": 0, "dead": 0}
    assert outbox.models(Wanted("erp")) == ()


def test_events_go_out_once_and_in_order(post: Post) -> None:
    """A second pass has nothing to do."""
    sender = Sending()
    assert post.send(sender).delivered == 3
    assert post.send(sender, timedelta(days=1)) == Passed()
    assert sender.got == [(MODEL, 1), (MODEL, 2), (MODEL, 3)]


def test_more_events_than_one_look_takes_all_go_out_in_one_pass(tmp_path: Path) -> None:
    """Two hundred and fifty events, in their order."""
    post, sender = Post(tmp_path, each=250), Sending()
    assert post.send(sender).delivered == 250
    assert [revision for _, revision in sender.got] == list(range(1, 251))


def test_a_failing_event_holds_back_later_ones_of_its_model_and_no_other_model(tmp_path: Path) -> None:
    """Nobody overtakes within a model; another model goes on."""
    post = Post(tmp_path, models=("demand", "stockout"))
    sender = Sending()
    sender.by_revision[2] = DOWN
    assert post.send(sender) == Passed(delivered=2, failed=2, words="HTTP 503")
    assert sender.got == [("demand", 1), ("demand", 2), ("stockout", 1), ("stockout", 2)]
    sender.by_revision.clear()
    assert post.send(sender, timedelta(seconds=20)) == Passed()
    assert post.send(sender, timedelta(seconds=20)).delivered == 4
    assert sender.got[4:] == [("demand", 2), ("demand", 3), ("stockout", 2), ("stockout", 3)]


def test_waits_grow_and_after_the_last_attempt_the_event_is_dead_and_the_next_goes_on(tmp_path: Path) -> None:
    """Four attempts half a minute, one, two minutes apart; the dead one says why."""
    post, sender = Post(tmp_path, max_attempts=4), Sending()
    sender.by_revision[1] = DOWN
    waits = []
    for _ in range(3):
        assert post.send(sender).failed == 1
        (first,) = post.outbox.waiting(wanted_by(post.target), MODEL, 1)
        assert first.next_at is not None
        waits.append((first.next_at - post.clock.now()).total_seconds())
        post.clock.set(first.next_at)
    assert [round(wait / 30) for wait in waits] == [1, 2, 4]
    assert post.send(sender) == Passed(delivered=2, dead=1, words="HTTP 503")
    (dead,) = post.outbox.listing(wanted_by(post.target), State.DEAD)
    assert (dead.revision, dead.attempts, dead.last_error) == (1, 4, "HTTP 503")


def test_a_receiver_that_refuses_for_good_is_asked_once(post: Post) -> None:
    """The event is dead at once, and later ones pass it."""
    sender = Sending()
    sender.by_revision[2] = Sent(False, "HTTP 410", refused=True)
    assert post.send(sender) == Passed(delivered=2, dead=1, words="HTTP 410")
    assert post.states() == ["delivered", "dead", "delivered"]


def test_a_receiver_that_names_a_time_is_left_alone_until_then(post: Post) -> None:
    """Retry-After of ten minutes beats the schedule's half minute."""
    sender = Sending(Sent(False, "HTTP 429", wait_s=600))
    post.send(sender)
    assert post.send(sender, timedelta(seconds=599)) == Passed()
    sender.default = Sent(True)
    assert post.send(sender, timedelta(seconds=1)).delivered == 3


def test_retry_gives_a_dead_event_all_its_attempts_back(post: Post) -> None:
    """Only dead ones come back; the others stay as they are."""
    sender = Sending()
    sender.by_revision[2] = Sent(False, "HTTP 410", refused=True)
    post.send(sender)
    ids = [d.event_id for d in post.outbox.listing(wanted_by(post.target))]
    assert post.outbox.retry("erp", ids, post.clock.now()) == 1
    assert post.outbox.retry("erp", ids, post.clock.now()) == 0
    assert post.outbox.retry("else", ids, post.clock.now()) == 0
    (again,) = post.outbox.waiting(wanted_by(post.target), MODEL)
    assert (again.revision, again.attempts) == (2, 0)
    assert post.send(Sending()).delivered == 1


def test_two_targets_do_not_know_of_each_other(post: Post) -> None:
    """One is down, the other has everything; a target that is added later gets the whole history."""
    post.send(Sending(DOWN))
    other, sender = file_target(name="lake"), Sending()
    assert dispatch(post.outbox, other, sender, post.clock, post.chance).delivered == 3


def test_a_target_takes_the_types_and_the_time_that_it_asked_for(tmp_path: Path) -> None:
    """Globs over the type, and a moment to begin at; what is not wanted does not wait."""
    ledger = SqlLedger(fill(tmp_path, each=3))
    append(ledger, 4, kind=RowKind.RETRAIN_REQUESTED)
    outbox = Outbox(str(ledger.engine.url))
    retrain = wanted_by(file_target(types=["*.retrain_*.v1"]))
    assert [d.revision for d in outbox.waiting(retrain, MODEL)] == [4]
    late = wanted_by(file_target(since="2026-01-01T03:00:00Z"))
    assert [d.revision for d in outbox.waiting(late, MODEL)] == [3, 4]
    assert outbox.counts(late)["pending"] == 2
    assert outbox.models(wanted_by(file_target(types=["*.promoted.v1"]))) == ()


def test_a_claim_is_had_by_one_and_runs_out(post: Post) -> None:
    """Whoever saw the same state is second; after the lease the event can be had again."""
    wanted, now = wanted_by(post.target), post.clock.now()
    (seen, *_) = post.outbox.waiting(wanted, MODEL)
    mine = post.outbox.claim(seen, now, LEASE)
    assert mine is not None
    assert mine.attempts == 1
    assert Outbox(post.url).claim(seen, now, LEASE) is None
    (later, *_) = post.outbox.waiting(wanted, MODEL)
    assert post.outbox.claim(later, now + LEASE - timedelta(seconds=1), LEASE) is None
    second = post.outbox.claim(later, now + LEASE, LEASE)
    assert second is not None
    assert second.attempts == 2


def test_the_first_claimer_who_comes_back_late_changes_nothing_but_a_delivery(post: Post) -> None:
    """A failure under a claim that ran out is not written down; a delivery is true whoever made it."""
    wanted, now = wanted_by(post.target), post.clock.now()
    (seen, *_) = post.outbox.waiting(wanted, MODEL)
    first = post.outbox.claim(seen, now, LEASE)
    (again, *_) = post.outbox.waiting(wanted, MODEL)
    second = post.outbox.claim(again, now + LEASE, LEASE)
    assert first is not None
    assert second is not None
    post.outbox.failed(first, "late", now, None)
    assert post.outbox.waiting(wanted, MODEL)[0].last_error == ""
    post.outbox.delivered(first, now)
    post.outbox.failed(second, "late", now, None)
    assert post.states() == ["delivered", "pending", "pending"]


MODELS = tuple(f"model_{letter}" for letter in "abcdef")


def _race(url: str, each: int) -> list[tuple[str, int]]:
    """What four dispatchers at once send of six models' events, in order."""
    sender, clock, target = Sending(), SetClock(START), file_target()

    def work(seed: int) -> None:
        outbox = Outbox(url)
        while outbox.models(wanted_by(target)):
            dispatch(outbox, target, sender, clock, random.Random(seed))
        outbox.close()

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work, seed) for seed in range(4)]:
            done.result()
    assert len(sender.got) == len(MODELS) * each
    return sender.got


def _in_order(got: list[tuple[str, int]], each: int) -> bool:
    return all([n for name, n in got if name == model] == list(range(1, each + 1)) for model in MODELS)


def test_dispatchers_at_once_send_each_event_once_and_in_order(tmp_path: Path) -> None:
    """Six models, twenty events each, four dispatchers over one SQLite file."""
    assert _in_order(_race(fill(tmp_path, MODELS, 20), 20), 20)


def test_dispatchers_at_once_over_postgres(postgres: Cluster) -> None:  # noqa: F811
    """The same over a PostgreSQL server, whose serialization failures are asked again."""
    url = postgres.database()
    ledger = SqlLedger(url)
    for number in range(1, 6):
        for model in MODELS:
            append(ledger, number, model=model)
    assert _in_order(_race(url, 5), 5)


def test_a_database_that_is_gone_is_named(tmp_path: Path) -> None:
    """DependencyDown, not a stack of SQL."""
    (tmp_path / "ledger.db").write_bytes(b"this is no database, and never was one " * 40)
    with pytest.raises(DependencyDown, match="ledger"):
        Outbox(f"sqlite:///{tmp_path / 'ledger.db'}", busy_timeout=0.2).models(Wanted("erp"))


def test_the_listing_shows_the_newest_last_and_keeps_to_its_limit(post: Post) -> None:
    """And a state picks."""
    wanted = wanted_by(post.target)
    assert [d.revision for d in post.outbox.listing(wanted, None, 2)] == [2, 3]
    found: tuple[Delivery, ...] = post.outbox.listing(wanted, State.DELIVERED)
    assert found == ()
