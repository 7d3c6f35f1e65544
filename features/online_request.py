"""A request for online features resolved once: which views, keys and names a question of Feast's means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import python_values_to_proto_values
from feast.utils import _get_cached_request_context
from feast.value_type import ValueType

from contracts.errors import InputInvalid, UnknownName
from features.online_response import text_values, whole_value
from features.online_rows import Int32, Key, Part, UnixTime

_PARTS: dict[str, Any] = {
    "string_val": str,
    "int64_val": int,
    "int32_val": Int32,
    "bytes_val": bytes,
    "unix_timestamp_val": UnixTime,
}


@dataclass(frozen=True)
class AskedView:
    """One view of a request: its join keys, under which names the request gives them, its columns and their names in
    the answer."""

    name: str
    keys: tuple[str, ...]
    given: tuple[str, ...]
    columns: tuple[str, ...]
    shown: tuple[str, ...]
    ttl: timedelta | None


@dataclass(frozen=True)
class Plan:
    """A request that is nothing but views and join keys: `key_types` of all join keys, names of the answer's columns,
    and Feast's types of the features."""

    views: tuple[AskedView, ...]
    key_types: Mapping[str, ValueType]
    shown: tuple[str, ...]
    types: Mapping[str, ValueType]


class Plans:
    """Plans of the requests that were seen, each for as long as Feast itself holds the request resolved."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Any, Plan | None]] = {}

    def plan(self, registry: Any, project: str, features: Any, full_names: bool, make_types: Any) -> Plan | None:
        """The plan of a request; None for one that needs more than views and join keys, which Feast answers itself."""
        if getattr(features, "precompute_online", False):
            return None
        context = _get_cached_request_context(registry, project, features, full_names)
        kept = self._kept.get(id(context))
        if kept is not None and kept[0] is context:
            return kept[1]
        if len(self._kept) > 256:
            self._kept.clear()
        plan = _resolved(context, full_names, make_types)
        self._kept[id(context)] = (context, plan)
        return plan


def _resolved(context: tuple[Any, ...], full_names: bool, make_types: Any) -> Plan | None:
    _, on_demand, _, types, keys, groups, _, request_data, entityless = context
    if on_demand or request_data or entityless:
        return None
    if any(getattr(table.projection, "version_tag", None) is not None for table, _ in groups):
        return None
    views = tuple(asked_view(table, names, full_names) for table, names in groups)
    shown = tuple(name for view in views for name in view.shown)
    return Plan(views, {name: types.get(name, ValueType.UNKNOWN) for name in keys}, shown, make_types(groups))


def asked_view(table: Any, names: Sequence[str], full_names: bool) -> AskedView:
    """A Feast view with the columns that are asked for."""
    alias, keys, view = table.projection.join_key_map, tuple(table.join_keys), table.projection.name_to_use()
    given = tuple(alias.get(name, name) for name in keys)
    shown = tuple(f"{view}__{name}" if full_names else name for name in names)
    return AskedView(table.name, keys, given, tuple(names), shown, table.ttl)


def columns_of(rows: Any) -> Mapping[str, Sequence[Any]]:
    """The rows of a request, column by column.

    Raises:
        InputInvalid: rows with different keys, or columns of different lengths.
    """
    if isinstance(rows, list):
        first = rows[0]
        try:
            columns = {name: [row[name] for row in rows] for name in first}
        except KeyError:
            columns = {}
        if sum(map(len, rows)) != len(rows) * len(columns):
            raise InputInvalid("entity_rows", "the same keys in every row", "different ones")
        return columns
    given = {name: values if isinstance(values, Sequence) else list(values.val) for name, values in rows.items()}
    if len({len(values) for values in given.values()}) > 1:
        raise InputInvalid("entity_rows", "as many values in every column", "different numbers")
    return given


def parts_of(name: str, kind: ValueType, values: Sequence[Any]) -> tuple[list[Part | None], list[bytes]]:
    """Parts of keys from what a request gives, None for null; and the same as encoded values.

    Raises:
        InputInvalid: a value that is no text, whole number, bytes or time.
    """
    types = set(map(type, values))
    if kind is ValueType.STRING and types == {str}:
        return list(values), text_values(values)
    if kind is ValueType.INT64 and types == {int}:
        return list(values), [whole_value(value) for value in values]
    protos = values if values and isinstance(values[0], Value) else python_values_to_proto_values(list(values), kind)
    return [part_of(name, value) for value in protos], [value.SerializeToString() for value in protos]


def part_of(name: str, value: Any) -> Part | None:
    """A part of a key from Feast's message, None for null.

    Raises:
        InputInvalid: a value that is no text, whole number, bytes or time.
    """
    kind = value.WhichOneof("val")
    if kind in _PARTS:
        part: Part = _PARTS[kind](getattr(value, kind))
        return part
    if kind is None:
        return None
    raise InputInvalid(f"join key {name!r}", "text, a whole number, bytes or a time", str(kind))


def keys_of(view: AskedView, parts: Mapping[str, Sequence[Part | None]]) -> list[Key | None]:
    """The key of every row of a request, None where a part of it is null.

    Raises:
        UnknownName: the request does not give one of the view's join keys.
    """
    for name in view.given:
        if name not in parts:
            raise UnknownName(f"join key of view {view.name}", name, parts)
    columns = [parts[name] for name in view.given]
    return [None if None in key else key for key in zip(*columns, strict=True)]
