"""A mapping: how somebody's files become canonical events. The language of the importer's YAML files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from contracts.policy import Name
from contracts.times import Duration, parse_duration
from contracts.yaml_file import Strict, load_strict

EventKind = Literal[
    "demand",
    "order_line",
    "price_promotion",
    "shipment",
    "outcome",
    "external_signal",
    "inventory_position",
    "attribute",
]


class Reader(Strict):
    """How a file is read. `file`: its name inside FILE when FILE is a folder; `text`: read every CSV column as text;
    `lines`: give a CSV's rows a column `source_line`, which a refusal names when the prepared rows still have it (a
    mapping without SQL always has it)."""

    file: str | None = None
    format: Literal["csv", "parquet"] | None = None
    encoding: str = "utf-8"
    delimiter: str = ","
    text: bool = True
    lines: bool = False


class Column(Strict):
    """Where one canonical field comes from.

    Exactly one of `from` (a source column), `value` (a constant), `join` (source columns joined by `separator`).
    `format`: strptime format(s) of a time, tried in order; `zone`: the zone of times without one; `plus`: added to a
    time; `decimal`: "," for decimal commas; `scale`: multiplies a number; `map`: replaces texts (others are refused
    when `strict_map`); `fallback`: another column spec tried when this one gives nothing; `true`: texts meaning true.
    """

    source: Annotated[str | None, Field(alias="from")] = None
    value: Any = None
    join: tuple[str, ...] | None = None
    separator: str = "|"
    format: tuple[str, ...] | str | None = None
    zone: str | None = None
    plus: Duration | None = None
    minus: Duration | None = None
    decimal: Literal[".", ","] = "."
    scale: float | None = None
    map: dict[str, Any] | None = None
    strict_map: bool = False
    missing: tuple[str, ...] = ("", "NA", "NaN", "nan", "null")
    true: tuple[str, ...] = ("1", "true", "yes", "y")
    fallback: Column | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Column:
        if sum(part is not None for part in (self.source, self.value, self.join)) != 1:
            raise ValueError("exactly one of from, value, join")
        return self


class EventMapping(Strict):
    """One kind of event out of the prepared rows. `where`: a DuckDB condition on them; `prepare`: a SELECT of its own,
    over the inputs and, as `prepared`, the file's prepared rows where another event is made of them; `gaps: zero` says
    that a period without rows, between a series' first one and the file's last, means zero demand."""

    kind: EventKind
    where: str | None = None
    prepare: str | None = None
    columns: dict[Name, Column]
    gaps: Literal["missing", "zero"] = "missing"


class EventsFile(Strict):
    """A mapping file.

    `inputs`: named files; each becomes a table of that name. `prepare`: a DuckDB SELECT over those tables that shapes
    the rows (joins, sums to the grain); without it the only input's rows are taken as they are. Files and the network
    are closed to the SQL.
    """

    source_system: Name
    inputs: dict[Name, Reader] = Field(min_length=1)
    prepare: str | None = None
    events: tuple[EventMapping, ...] = Field(min_length=1)
    batch: Duration = parse_duration("1d")


def load_mapping(path: Path) -> EventsFile:
    """The mapping file as an object.

    Raises:
        ConfigInvalid: with file, line, key, what was wanted, what came and the nearest valid key.
    """
    return load_strict(path, EventsFile)
