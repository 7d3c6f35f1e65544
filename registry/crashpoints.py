"""Labelled places at which a process can be told to die, so that tests can show that dying there does no harm."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

CRASH_POINTS = (
    "register.sealed",
    "artifact.copied",
    "artifact.placed",
    "ledger.inserted",
    "ledger.committed",
    "register.projected",
    "gate.recorded",
    "gate.superseded",
    "apply.verified",
    "verdict.recorded",
    "apply.recorded",
    "hand.recorded",
    "file.written",
    "file.replaced",
    "apply.projected",
    "apply.done",
)

_SEEN: Counter[str] = Counter()
_HOOKS: list[Callable[[str], None]] = []


@contextmanager
def passing(hook: Callable[[str], None]) -> Iterator[None]:
    """Call `hook` with the label of every point passed inside the block: to raise there, or to let another act."""
    _HOOKS.append(hook)
    try:
        yield
    finally:
        _HOOKS.remove(hook)


def crash_point(label: str) -> None:
    """Kill this very process with SIGKILL when the environment says to die here; otherwise do nothing.

    `SEATRIAL_CRASH_AT` holds a label of CRASH_POINTS or its position in it, and after a colon the how-manieth
    passage is meant: `ledger.committed:3`, `4:3`; without it the first.

    Args:
        label: one of CRASH_POINTS.
    """
    for hook in tuple(_HOOKS):
        hook(label)
    wanted = os.environ.get("SEATRIAL_CRASH_AT")
    if not wanted:
        return
    name, _, passage = wanted.partition(":")
    if name.isdigit():
        name = CRASH_POINTS[int(name)]
    if name != label:
        return
    _SEEN[label] += 1
    if _SEEN[label] == int(passage or 1):
        os.kill(os.getpid(), signal.SIGKILL)
