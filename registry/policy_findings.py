"""What a check of a policy says, and what it needs to know around the policy. Values only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum


class Severity(StrEnum):
    """error: it cannot work as written; warning: it works and is unsafe or pointless; note: worth knowing."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class PolicyFinding:
    """One thing that is wrong: `name` is stable, `key` the dotted key, `what` is so, `why` it matters, what to `do`."""

    severity: Severity
    name: str
    key: str
    what: str
    why: str
    do: str


@dataclass(frozen=True)
class Surroundings:
    """What a policy refers to, and the figures that its steps have to be reachable with.

    Attributes:
        services: declared feature services. incumbents: rules that exist for the policy's kind.
        fields: text fields of this kind's requests. composites: canary keys made of several fields.
        segments: columns that a gate may slice by.
        titles: titles and roles that anybody holds, None when that is not known.
        decisions_per_day: as recorded lately, None when nothing was recorded.
        label_delay: from a decision to its outcome, None when not measured.
        scored_rows: rows of the newest backtest, None without one.
        segment_rows: rows of each slice of that backtest, by segment.
    """

    services: tuple[str, ...] = ()
    incumbents: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    composites: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    segments: tuple[str, ...] = ()
    titles: tuple[str, ...] | None = None
    decisions_per_day: float | None = None
    label_delay: timedelta | None = None
    scored_rows: int | None = None
    segment_rows: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


Findings = Iterator[PolicyFinding]


def error(name: str, key: str, what: str, why: str, do: str) -> PolicyFinding:
    """A finding with which the policy cannot work."""
    return PolicyFinding(Severity.ERROR, name, key, what, why, do)


def warning(name: str, key: str, what: str, why: str, do: str) -> PolicyFinding:
    """A finding with which the policy works, unsafely or to no purpose."""
    return PolicyFinding(Severity.WARNING, name, key, what, why, do)


def note(name: str, key: str, what: str, why: str, do: str) -> PolicyFinding:
    """A finding that is worth knowing."""
    return PolicyFinding(Severity.NOTE, name, key, what, why, do)
