"""Events out of one workspace: the targets that events.yaml names, and one pass over them."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from contracts.errors import InputInvalid, UnknownName
from contracts.events_out import AnyTarget, EventsOut
from contracts.settings import Settings
from contracts.times import Clock
from contracts.yaml_file import load_strict
from lifecycle.progress import Progress, quiet
from registry.dispatch import Passed, dispatch, wanted_by
from registry.event_targets import sender_of
from registry.outbox import Sender, Sent
from registry.sql_outbox import Delivery, Outbox, State


def load_targets(settings: Settings, only: str | None = None) -> tuple[AnyTarget, ...]:
    """The targets of the workspace, or the one of that name; none when there is no events.yaml.

    Raises:
        ConfigInvalid: the file breaks its schema.
        UnknownName: there is no target of that name.
    """
    file = settings.events
    if not file.is_file():
        if only is not None:
            raise InputInvalid(str(file), "a file that says where events go", "no such file")
        return ()
    targets = load_strict(file, EventsOut).targets
    if only is None:
        return targets
    found = tuple(target for target in targets if target.name == only)
    if not found:
        raise UnknownName("target", only, [target.name for target in targets])
    return found


@contextmanager
def opened(settings: Settings) -> Iterator[Outbox]:
    """The workspace's outbox."""
    outbox = Outbox(settings.ledger)
    try:
        yield outbox
    finally:
        outbox.close()


@dataclass(frozen=True)
class Dispatcher:
    """Sends to several targets, one after the other; one that is down does not keep the others waiting.

    `senders`: by the name of their target; all are made before anything is sent, so that a mistake in the file is
    found first.
    """

    outbox: Outbox
    targets: tuple[AnyTarget, ...]
    senders: Mapping[str, Sender]
    clock: Clock
    chance: random.Random

    def send(self, progress: Progress = quiet) -> dict[str, Passed]:
        """One pass over every target.

        Returns:
            what the pass did, by target.

        Raises:
            DependencyDown: the ledger's database does not answer.
        """
        return {target.name: self._to(target, progress) for target in self.targets}

    def _to(self, target: AnyTarget, progress: Progress) -> Passed:
        waiting = max(1, self.outbox.counts(wanted_by(target))[State.PENDING.value])
        tried = 0

        def told(delivery: Delivery, _sent: Sent) -> None:
            nonlocal tried
            tried += 1
            progress(f"{target.name}: {delivery.model}", min(1.0, tried / waiting))

        return dispatch(self.outbox, target, self.senders[target.name], self.clock, self.chance, told)


@contextmanager
def dispatcher(settings: Settings, targets: tuple[AnyTarget, ...], clock: Clock) -> Iterator[Dispatcher]:
    """A dispatcher over the workspace's outbox, with its connections given back at the end.

    Raises:
        ConfigInvalid, TargetRefused, UsageError: see `registry.event_targets.sender_of`; nothing was sent.
    """
    senders: dict[str, Sender] = {}
    try:
        for target in targets:
            senders[target.name] = sender_of(target, os.environ, str(settings.events))
        with opened(settings) as outbox:
            yield Dispatcher(outbox, targets, senders, clock, random.Random())
    finally:
        for sender in senders.values():
            sender.close()
