"""Feast's online interface to the embedded store, so that Feast's own calls work on the data that is served."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from feast.infra.online_stores.online_store import OnlineStore as FeastOnlineStore
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import FeastConfigBaseModel
from pydantic import field_validator

from contracts.errors import InputInvalid
from features.online import OnlineStore

_NUMBERS = ("double_val", "float_val", "int64_val", "int32_val", "bool_val")


class EmbeddedOnlineStoreConfig(FeastConfigBaseModel):
    """`online_store:` of feature_store.yaml. `path`: the store's folder, absolute."""

    type: Literal["features.embedded_online_store.EmbeddedOnlineStore"] = (
        "features.embedded_online_store.EmbeddedOnlineStore"
    )
    path: str

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: str) -> str:
        # an unset variable stays in Feast's YAML as ${SEATRIAL_HOME}
        if not Path(path).is_absolute():
            raise ValueError(f"an absolute folder, not {path!r}; set SEATRIAL_HOME to one")
        return path


class EmbeddedOnlineStore(FeastOnlineStore):
    """Reads and writes `features.online.OnlineStore` on Feast's behalf.

    Feast has no age or status: a row is given however old it is, with its event time; `OnlineStore.read` tells.
    """

    _store: OnlineStore | None = None

    def online_write_batch(
        self,
        config: Any,
        table: Any,
        data: list[tuple[Any, dict[str, Any], datetime, datetime | None]],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write rows; an older row never replaces a newer one, in whatever order they come.

        Raises:
            InputInvalid: a join key that is no text, or a feature that is no number.
        """
        names = [field.name for field in table.features]
        keys = list(table.join_keys)
        rows = [
            (*_key(table, entity), _aware(event), _aware(known or event), *_numbers(table, names, values))
            for entity, values, event, known in data
        ]
        if rows:
            frame = pd.DataFrame(rows, columns=[*keys, "event_time", "known_at", *names])
            self._open(config).write(table.name, keys, frame)
        if progress:
            progress(len(rows))

    def online_read(
        self, config: Any, table: Any, entity_keys: list[Any], requested_features: list[str] | None = None
    ) -> list[tuple[datetime | None, dict[str, Any] | None]]:
        """Event time and values of each key; (None, None) where there is no row, an empty value where it is unknown."""
        columns = tuple(requested_features or [field.name for field in table.features])
        store = self._open(config)
        found = [store.newest(table.name, columns, _key(table, entity)) for entity in entity_keys]
        return [(None, None) if row is None else (row[0], _values(row[2])) for row in found]

    def update(
        self,
        config: Any,
        tables_to_delete: Sequence[Any],
        tables_to_keep: Sequence[Any],
        entities_to_delete: Sequence[Any],
        entities_to_keep: Sequence[Any],
        partial: bool,
    ) -> None:
        """Take away the rows of views that are no more; called by `feast apply`."""
        for table in tables_to_delete:
            self._open(config).forget(table.name)

    def teardown(self, config: Any, tables: Sequence[Any], entities: Sequence[Any]) -> None:
        """Take away the rows of all views; called by `feast teardown`."""
        for table in tables:
            self._open(config).forget(table.name)

    def _open(self, config: Any) -> OnlineStore:
        if self._store is None:
            self._store = OnlineStore(Path(config.online_store.path))
        return self._store


def _key(table: Any, entity: Any) -> tuple[str, ...]:
    parts = dict(zip(entity.join_keys, entity.entity_values, strict=True))
    for name, value in parts.items():
        if value.WhichOneof("val") != "string_val":
            raise InputInvalid(f"key of view {table.name}", f"text in {name!r}", str(value.WhichOneof("val")))
    return tuple(parts[name].string_val for name in table.join_keys)


def _numbers(table: Any, names: list[str], values: dict[str, Any]) -> list[float]:
    numbers: list[float] = []
    for name in names:
        kind = values[name].WhichOneof("val") if name in values else None
        if kind is not None and kind not in _NUMBERS:
            raise InputInvalid(f"view {table.name}", f"a number in {name!r}", kind)
        numbers.append(math.nan if kind is None else float(getattr(values[name], kind)))
    return numbers


def _values(row: dict[str, float | None]) -> dict[str, Any]:
    return {name: Value() if value is None else Value(double_val=value) for name, value in row.items()}


def _aware(moment: datetime) -> datetime:
    # Feast hands over naive times that mean UTC
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
