"""Event contracts: the Open Data Contract Standard files of `contracts/events/`, as values that a checker can use.

Types, ranges, choices and lengths of a property are its row rules. The standard's `quality` sections hold the others,
each tagged `technical` (severity error: the row is refused, or the whole delivery stopped) or `business` (severity
warning: the row lands and is flagged). A rule that is not in the standard's library is `custom`, engine `seatrial`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from ruamel.yaml import YAML

from contracts.errors import UnknownName

FieldType = Literal["text", "number", "integer", "boolean", "time"]
RuleLevel = Literal["technical", "business"]
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
class QualityRule:
    """One entry of a contract's `quality` section.

    Attributes:
        id: the rule's id, unique for its field.
        field: the field that it is about; "" for a rule about every field of the kind.
        check: what is looked at: a metric of the standard's library, or the name of one of our checks.
        level: technical rules refuse, business rules flag.
        dimension: the standard's data quality dimension.
        options: thresholds and other arguments; a library metric's `mustBeLessThan` is there under that name.
    """

    id: str
    field: str
    check: str
    level: RuleLevel
    dimension: str
    options: Mapping[str, Any]

    def named(self, column: str = "") -> str:
        """`field.id`, or `column.id` for a rule about every field."""
        return f"{self.field or column}.{self.id}"


@dataclass(frozen=True)
class EventContract:
    """One kind of event. `natural_key` names what a correction replaces; `version` is the schema's; `rules` are the
    quality rules of the kind and of its fields."""

    kind: str
    version: str
    fields: tuple[EventField, ...]
    natural_key: tuple[str, ...]
    rules: tuple[QualityRule, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Field names in order."""
        return tuple(item.name for item in self.fields)

    def rules_of(self, check: str, column: str | None = None) -> tuple[QualityRule, ...]:
        """The rules with that check; with `column`, only those about it."""
        return tuple(rule for rule in self.rules if rule.check == check and column in (None, rule.field or column))


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
    rules = [_rule(entry, "") for entry in table.get("quality") or ()]
    for item in table["properties"]:
        rules += [_rule(entry, item["name"]) for entry in item.get("quality") or ()]
    return EventContract(
        kind=kind,
        version=str(tree["version"]),
        fields=tuple(_field(item) for item in table["properties"]),
        natural_key=tuple(_custom(table, "naturalKey")),
        rules=tuple(rules),
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


def _rule(entry: dict[str, Any], column: str) -> QualityRule:
    if entry["type"] == "library":
        thresholds = {name: value for name, value in entry.items() if name.startswith(("mustBe", "mustNotBe"))}
        check, options = entry["metric"], {**(entry.get("arguments") or {}), **thresholds}
    else:
        options = dict(entry["implementation"])
        check = options.pop("check")
    level: RuleLevel = "business" if "business" in entry["tags"] else "technical"
    return QualityRule(entry["id"], column, check, level, entry["dimension"], options)


def _custom(item: dict[str, Any], name: str) -> Any:
    for entry in item.get("customProperties") or ():
        if entry["property"] == name:
            return entry["value"]
    return ()
