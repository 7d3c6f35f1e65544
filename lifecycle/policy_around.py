"""What is around a policy in its workspace: declarations, request fields, traffic, outcomes, the newest backtest."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pandas as pd

from contracts.decisions import DecisionRecord
from contracts.declarations import fact_columns, join_keys, view_columns
from contracts.policy import Kind, Policy
from contracts.rollout import RowKind
from lifecycle.workspace import Workspace
from models.incumbent import INCUMBENTS
from registry.access import Role
from registry.policy_findings import Surroundings
from serving.requests import Inbound, Shipment, SkuLocation
from serving.routing import COMPOSITE_KEYS

RECENT = timedelta(days=28)
_REQUESTS: dict[Kind, type[Inbound]] = {"forecast": SkuLocation, "risk": Shipment}
_NO_TEXT = frozenset({"promised_at", "scheduled_at", "distance_km", "quantity", "weight_kg", "value"})


def surroundings(ws: Workspace, policy: Policy) -> Surroundings:
    """What a policy of the workspace refers to; figures only where something was recorded. Nothing is written.

    Args:
        ws: the workspace; its home need not exist yet.
        policy: of any model, new ones too.
    """
    fields = tuple(name for name in _REQUESTS[policy.kind].model_fields if name not in _NO_TEXT)
    declared = Surroundings(
        services=tuple(ws.declarations.services),
        incumbents=tuple(name for name, kind in INCUMBENTS.items() if kind == policy.kind),
        fields=fields,
        composites={name: parts for name, (parts, _) in COMPOSITE_KEYS.items()},
        segments=_columns(ws, policy, fields),
        titles=_titles(ws),
        label_delay=timedelta(days=policy.horizon) if policy.horizon else None,
    )
    return _with_history(ws, policy, declared) if ws.settings.home.exists() else declared


def _columns(ws: Workspace, policy: Policy, fields: tuple[str, ...]) -> tuple[str, ...]:
    """Columns of a training set that a gate may slice by, and the classes of volume that a forecast has."""
    found = [*fields, *(["volume", "step"] if policy.kind == "forecast" else [])]
    service = ws.declarations.services.get(policy.features)
    for name in service.views if service else ():
        view = ws.declarations.views[name]
        found += [*join_keys(view), *(f"{name}__{column}" for column in view_columns(view))]
    for group in service.facts if service else ():
        found += fact_columns(group)
    return tuple(dict.fromkeys(found))


def _titles(ws: Workspace) -> tuple[str, ...] | None:
    """Titles and roles that a key in force carries; None while access is open and anybody may say anything."""
    if ws.settings.access != "required":
        return None
    from registry.access_file import read_access

    keys = [key for key in read_access(ws.settings.access_file).keys.values() if key.revoked_at is None]
    return tuple(sorted({*(str(role.value) for role in Role), *(title for key in keys for title in key.titles)}))


def _with_history(ws: Workspace, policy: Policy, declared: Surroundings) -> Surroundings:
    from drift.log_source import LogSource

    records = LogSource(ws.settings.decisions, policy.model).records()
    found = declared
    if records:
        last = max(record.as_of for record in records)
        recent = [record for record in records if record.as_of > last - RECENT]
        span = max(last - min(record.as_of for record in recent), timedelta(days=1))
        delay = declared.label_delay or _label_delay(ws, records)
        found = replace(found, decisions_per_day=len(recent) / (span / timedelta(days=1)), label_delay=delay)
    registered = [row for row in ws.ledger.rows(policy.model) if row.kind is RowKind.REGISTERED]
    losses = ws.artifacts.path(policy.model, registered[-1].version) / "losses.parquet" if registered else None
    if losses is None or not losses.is_file():
        return found
    table = pd.read_parquet(losses)
    slices = {
        str(name).removeprefix("segment_"): {str(label): int(n) for label, n in table[name].value_counts().items()}
        for name in table.columns
        if str(name).startswith("segment_")
    }
    return replace(found, scored_rows=len(table), segment_rows=slices)


def _label_delay(ws: Workspace, records: list[DecisionRecord]) -> timedelta | None:
    """Median time from a shipment's decision to its outcome being known."""
    if "outcome" not in ws.landing.kinds():
        return None
    landed = ws.landing.read("outcome")[["shipment_id", "known_at"]]
    decided = pd.DataFrame(
        {
            "shipment_id": [record.subject.get("shipment_id", "") for record in records],
            "as_of": pd.DatetimeIndex([record.as_of for record in records], tz="UTC"),
        }
    )
    both = decided.merge(landed, on="shipment_id")
    delays = (both["known_at"] - both["as_of"])[both["known_at"] > both["as_of"]]
    return pd.Timedelta(delays.median()).to_pytimedelta() if len(delays) else None
