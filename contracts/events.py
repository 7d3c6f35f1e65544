"""Event contracts: the Open Data Contract Standard files of `contracts/events/`, as values that a checker can use."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from ruamel.yaml import YAML

from contracts.errors import UnknownName

FieldType = Literal["text", "number", "integer", "boolean", "time"]
_TYPES: dict[tuple[str, str | None], FieldType] = {
    ("string", None): "text",
    ("number", None): "number",
    ("integer", None): "integer",
    ("boolean", None): "boolean",
    ("timestamp", None): "time",
}


@dataclass(frozen=True)
class EventField:
    """One field: its type, whether it must be there, and its allowed range in the stated unit."""

    name: str
    type: FieldType
    required: bool
    minimum: float | None = None
    maximum: float | None = None
    max_length: int | None = None
    choices: tuple[str, ...] = ()
    unit: str = ""


@dataclass(frozen=True)
class EventContract:
    """One kind of event. `natural_key` names what a correction replaces; `version` is the schema's."""

    kind: str
    version: str
    fields: tuple[EventField, ...]
    natural_key: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Field names in order."""
        return tuple(field.name for field in self.fields)


def event_kinds() -> tuple[str, ...]:
    """Names of all event kinds that have a contract."""
    folder = files("contracts") / "events"
    names = [item.name for item in folder.iterdir()]
    return tuple(sorted(name.removesuffix(".odcs.yaml") for name in names if name.endswith(".odcs.yaml")))


@cache
def event_contract(kind: str) -> EventContract:
    """The contract of one kind of event.

    Raises:
        UnknownName: no such kind; names the nearest.
    """
    if kind not in event_kinds():
        raise UnknownName("event kind", kind, event_kinds())
    text = (files("contracts") / "events" / f"{kind}.odcs.yaml").read_text(encoding="utf-8")
    tree = YAML(typ="safe", pure=True).load(text)
    table = tree["schema"][0]
    return EventContract(
        kind=kind,
        version=str(tree["version"]),
        fields=tuple(_field(item) for item in table["properties"]),
        natural_key=tuple(_custom(table, "naturalKey")),
    )


def _field(item: dict[str, Any]) -> EventField:
    options = item.get("logicalTypeOptions") or {}
    unit = _custom(item, "unit")
    return EventField(
        name=item["name"],
        type=_TYPES[(item["logicalType"], None)],
        required=bool(item.get("required", False)),
        minimum=options.get("minimum"),
        maximum=options.get("maximum"),
        max_length=options.get("maxLength"),
        choices=tuple(entry["value"] for entry in item.get("enum") or ()),
        unit=unit if isinstance(unit, str) else "",
    )


def _custom(item: dict[str, Any], name: str) -> Any:
    for entry in item.get("customProperties") or ():
        if entry["property"] == name:
            return entry["value"]
    return ()
