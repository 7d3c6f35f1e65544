"""Sending what waits: one pass over one target, model by model, in order; every outcome is written down at once."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from contracts.events_out import Target
from contracts.times import Clock
from registry.outbox import Sender, Sent, next_wait
from registry.sql_outbox import Delivery, Outbox, Wanted

_SPARE = timedelta(seconds=60)


@dataclass(frozen=True)
class Passed:
    """What one pass did: events delivered, attempts that failed and will be repeated, events that died; `words`: why
    the last one failed."""

    delivered: int = 0
    failed: int = 0
    dead: int = 0
    words: str = ""

    def __add__(self, other: Passed) -> Passed:
        words = other.words or self.words
        return Passed(self.delivered + other.delivered, self.failed + other.failed, self.dead + other.dead, words)


def wanted_by(target: Target) -> Wanted:
    """Which events a target takes."""
    return Wanted(target.name, target.types, target.since)


def dispatch(
    outbox: Outbox,
    target: Target,
    sender: Sender,
    clock: Clock,
    chance: random.Random,
    told: Callable[[Delivery, Sent], None] = lambda _delivery, _sent: None,
) -> Passed:
    """Send everything that is due for a target.

    An event that fails ends the pass for its model, whose later events wait behind it. One that the receiver refuses
    for good, or that failed `max_attempts` times, is dead and lets the next one through.

    Args:
        outbox: where the events are.
        target: the target as events.yaml has it.
        sender: brings events there.
        clock: where "now" comes from.
        chance: for the spread of the waits.
        told: called after each attempt.

    Raises:
        DependencyDown: the ledger's database does not answer.
    """
    wanted, done = wanted_by(target), Passed()
    for model in outbox.models(wanted):
        while True:
            part, more = _stretch(outbox, wanted, model, target, sender, clock, chance, told)
            done += part
            if not more:
                break
    return done


def _stretch(
    outbox: Outbox,
    wanted: Wanted,
    model: str,
    target: Target,
    sender: Sender,
    clock: Clock,
    chance: random.Random,
    told: Callable[[Delivery, Sent], None],
) -> tuple[Passed, bool]:
    """Send a model's next events up to the first that has to wait; and whether there may be more behind them."""
    found, done = outbox.waiting(wanted, model), Passed()
    lease = timedelta(seconds=target.timeout_s) + _SPARE
    for waiting in found:
        mine = outbox.claim(waiting, clock.now(), lease)
        if mine is None:
            return done, False
        sent = sender.send(mine.event, clock.now())
        part = _settled(outbox, mine, sent, target, clock, chance)
        told(mine, sent)
        done += part
        if part.failed:
            return done, False
    return done, bool(found)


def _settled(outbox: Outbox, mine: Delivery, sent: Sent, target: Target, clock: Clock, chance: random.Random) -> Passed:
    """Write down what came of an attempt."""
    now = clock.now()
    if sent.ok:
        outbox.delivered(mine, now)
        return Passed(delivered=1)
    if sent.refused or mine.attempts >= target.max_attempts:
        outbox.failed(mine, sent.words, now, None)
        return Passed(dead=1, words=sent.words)
    outbox.failed(mine, sent.words, now, now + next_wait(mine.attempts, chance, sent.wait_s))
    return Passed(failed=1, words=sent.words)
