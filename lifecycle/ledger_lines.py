"""Ledger rows as lines that a person reads: when, what, which version, who, why, and on what evidence. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from textwrap import wrap
from typing import Any

from contracts.rollout import LedgerRow, RowKind

HEADINGS = ("row", "when (UTC)", "what", "version", "who", "why", "evidence")
_WHY = 96
_DECIDING = 4
_HASHES = {"run_id": "run", "manifest_sha256": "manifest", "dataset_hash": "data"}


def chosen(
    rows: Sequence[LedgerRow],
    *,
    kinds: Iterable[RowKind] = (),
    version: str = "",
    since: datetime | None = None,
    limit: int | None = None,
) -> tuple[LedgerRow, ...]:
    """The rows that a reader asked for, oldest first; `limit` keeps the newest of them."""
    wanted = set(kinds)
    found = [
        row
        for row in rows
        if (not wanted or row.kind in wanted) and version in ("", row.version) and (since is None or row.at >= since)
    ]
    return tuple(found if limit is None else found[max(0, len(found) - limit) :])


def cells(row: LedgerRow, chain: Sequence[LedgerRow]) -> tuple[str, ...]:
    """One row's cells under HEADINGS.

    Args:
        row: the row.
        chain: the model's whole chain; evidence is often an earlier row.
    """
    why = row.reason if len(row.reason) <= _WHY else row.reason[: _WHY - 1] + "…"
    when = f"{row.at:%Y-%m-%d %H:%M}"
    return (str(row.revision), when, row.kind.value, row.version or "-", row.actor, why, evidence(row, chain))


def table(rows: Sequence[tuple[str, ...]], headings: Sequence[str] = HEADINGS) -> list[str]:
    """Lines of cells in columns; the last column is as long as it is."""
    every = [tuple(headings), *(tuple(_one_line(cell) for cell in row) for row in rows)]
    widths = [max(len(row[place]) for row in every) for place in range(len(headings))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in every]


def fitted(rows: Sequence[tuple[str, ...]], width: int, headings: Sequence[str] = HEADINGS) -> list[str]:
    """As `table` where its lines fit into `width`; else a block a row, its last two cells below it and wrapped."""
    lines = table(rows, headings)
    if max(map(len, lines)) <= width:
        return lines
    found = table([row[:-2] for row in rows], headings[:-2])
    blocks = found[:1]
    for row, line in zip(rows, found[1:], strict=True):
        blocks.append(line)
        for name, cell in zip(headings[-2:], row[-2:], strict=True):
            if cell != "-":
                blocks += wrap(f"{name}: {_one_line(cell)}", width, initial_indent="    ", subsequent_indent="      ")
    return blocks


def evidence(row: LedgerRow, chain: Sequence[LedgerRow]) -> str:
    """What a row rests on: run and manifest, deciding figures, the gate's row, the approver, the policy."""
    said = row.payload
    parts = [f"{short} {str(said[name])[:8]}" for name, short in _HASHES.items() if said.get(name)]
    if row.kind is RowKind.REGISTERED and said.get("trained_until"):
        parts.append(f"{said.get('rows', '?')} rows until {str(said['trained_until'])[:10]}")
    if row.kind is RowKind.KEY_ISSUED:
        parts.append(_key(said))
    parts += _figures(said)
    if row.kind in (RowKind.SHADOW_STARTED, RowKind.CANARY_STEP, RowKind.PROMOTED, RowKind.APPROVED):
        gate = [r.revision for r in chain[: row.revision] if r.kind is RowKind.GATED and r.version == row.version]
        parts += [f"gate in row {gate[-1]}"] if gate else ["no gate"]
        parts += [f"verdict in row {said['verdict_revision']}"] if said.get("verdict_revision") else []
    if "share" in said:
        parts.append(f"share {float(said['share']):.0%}")
    parts += [f"{name} {said[name]}" for name in ("approver", "role", "to", "by") if said.get(name)]
    if row.kind is RowKind.POLICY_CHANGED or not parts:
        parts += [f"policy {str(said['policy_hash'])[:8]}"] if said.get("policy_hash") else []
    return ", ".join(parts) or "-"


def _key(said: dict[str, Any]) -> str:
    """Whom a key lets in, as what, to which models and until when."""
    models = "every model" if said.get("models") is None else ", ".join(said["models"])
    return f"{', '.join(said.get('roles', ()))} for {said.get('owner')}, {models}, until {str(said['expires_at'])[:10]}"


def _figures(said: dict[str, Any]) -> list[str]:
    """The criteria that decided a verdict, and how much was seen for it."""
    criteria = said.get("criteria") or []
    named: dict[str, Any] = {str(c.get("name")): c for c in criteria if isinstance(c, dict)}
    held = said.get("evidence")
    named |= {name: c for name, c in held.items() if isinstance(c, dict) and "outcome" in c} if held else {}
    outcome = str(said.get("outcome") or _worst(named))
    deciding = [
        f"{name} {_number(c.get('value'))} ({_number(c.get('bound'))})" for name, c in _deciding(named, outcome)
    ]
    parts = [f"{outcome}: {'; '.join(deciding)}" if deciding else outcome] if outcome else []
    seen = said.get("seen") or {}
    if seen.get("decisions"):
        parts.append(f"{seen['decisions']} decisions, {seen.get('pairs', 0)} pairs over {_number(seen.get('days'))} d")
    return parts


def _deciding(named: dict[str, Any], outcome: str) -> list[tuple[str, Any]]:
    """Criteria with the verdict's own outcome; comparisons with a rival first, since a pass rests on them."""
    found = [(name, c) for name, c in named.items() if c.get("outcome") == outcome and c.get("value") is not None]
    return sorted(found, key=lambda pair: not pair[0].startswith(("beat_", "accuracy")))[:_DECIDING]


def _worst(named: dict[str, Any]) -> str:
    outcomes = {str(c.get("outcome")) for c in named.values()}
    return next((o for o in ("fail", "inconclusive", "pass") if o in outcomes), "")


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, (int, float)) else "-"


def _one_line(text: str) -> str:
    """`text` without anything that would break the line or steer a terminal."""
    return "".join(c if c.isprintable() else " " for c in text)
