"""What is expected of a source: the service levels of an event contract, and where a feature repository says otherwise.

Contracts write them as `slaProperties` of the Open Data Contract Standard: frequency, latency, freshness, completeness
and errorRate.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from importlib.resources import files
from typing import Annotated, Any

from pydantic import Field, ValidationError
from ruamel.yaml import YAML

from contracts.errors import ConfigInvalid, UnknownName
from contracts.events import event_kinds
from contracts.times import Duration
from contracts.yaml_file import Strict

_FIELDS = {
    "frequency": "frequency",
    "latency": "latency",
    "freshness": "freshness",
    "completeness": "completeness",
    "errorRate": "refused",
}
Share = Annotated[float, Field(ge=0, le=1)]
Span = Annotated[Duration, Field(gt=timedelta(0))]


class SourceTerms(Strict):
    """What is expected of the events of one kind from one source.

    Attributes:
        frequency: something becomes known at least this often, and each stretch of this length has events.
        latency: within this an event is known after it happened (95 of 100 events).
        freshness: for automation, the newest event is at most this old.
        completeness: share of the last 28 stretches of `frequency` that have events, at least.
        refused: share of the rows of the last deliveries that is in quarantine undecided, at most (`errorRate`).
        ended: nothing more is expected of the source; it is shown and asked nothing.
    """

    frequency: Span
    latency: Duration
    freshness: Span
    completeness: Share
    refused: Share
    ended: bool = False


class SourceOverride(Strict):
    """Where a source differs from its contract; what is left out is the contract's."""

    frequency: Span | None = None
    latency: Duration | None = None
    freshness: Span | None = None
    completeness: Share | None = None
    refused: Share | None = None
    ended: bool = False


Overrides = Mapping[str, Mapping[str, SourceOverride]]


@cache
def contract_terms(kind: str) -> SourceTerms:
    """The service levels in the contract of one kind of event.

    Raises:
        UnknownName: no such kind.
        ConfigInvalid: the contract lacks one, or its value or unit cannot be read.
    """
    if kind not in event_kinds():
        raise UnknownName("event kind", kind, event_kinds())
    name = f"{kind}.odcs.yaml"
    tree = YAML(typ="safe", pure=True).load((files("contracts") / "events" / name).read_text(encoding="utf-8"))
    given = {item["property"]: item for item in tree.get("slaProperties") or ()}
    found = {field: _value(given[wanted]) for wanted, field in _FIELDS.items() if wanted in given}
    try:
        return SourceTerms.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        key = f"slaProperties.{first['loc'][0]}"
        raise ConfigInvalid(name, key, str(first["msg"]), repr(first["input"])[:80]) from None


def terms_of(source: str, kind: str, overrides: Overrides) -> SourceTerms:
    """The contract's terms with a source's own in their place.

    Args:
        source: the source system's name.
        kind: an event kind.
        overrides: source -> kind -> what differs (`sources` of features.yaml).
    """
    terms, own = contract_terms(kind), overrides.get(source, {}).get(kind)
    return terms if own is None else terms.model_copy(update={name: value for name, value in own if value is not None})


def _value(item: Mapping[str, Any]) -> Any:
    value, unit = item["value"], str(item.get("unit", ""))
    return f"{value}{unit}" if unit in ("s", "m", "h", "d", "w") else value


def expected_within(terms: SourceTerms) -> timedelta:
    """How long after its last delivery a source may be silent: the next one is due, and may be as late as agreed."""
    return terms.frequency + terms.latency
