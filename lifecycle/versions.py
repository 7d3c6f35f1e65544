"""Registered versions side by side: which rows both can be judged on, and what went into each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from contracts.errors import NotEnoughData, UnknownName, UsageError
from contracts.policy import Policy
from contracts.times import iso
from lifecycle.comparison import INCUMBENT, Paired
from lifecycle.pipeline import training_set
from lifecycle.progress import Progress, quiet
from lifecycle.workspace import Workspace

SETTINGS = ("trained_until", "rows", "dataset_hash", "features", "features_hash", "policy_hash", "code_revision")


@dataclass(frozen=True)
class Version:
    """A registered version whose files were verified: name, folder, what the manifest says of it."""

    name: str
    folder: Path
    meta: dict[str, Any]

    @property
    def settings(self) -> dict[str, Any]:
        """What went into it, as plain values: parameters, seed, rows, hashes, spans of the data."""
        info = json.loads((self.folder / "spec.json").read_text(encoding="utf-8"))["version_info"]
        scored = json.loads((self.folder / "evaluation.json").read_text(encoding="utf-8"))["dataset"]
        found = {name: self.meta.get(name) for name in SETTINGS}
        found |= {f"params.{name}": value for name, value in self.meta.get("params", {}).items()}
        found |= {name: info.get(name) for name in ("seed", "rows_from", "rows_until")}
        return found | {"scored_from": scored["as_of_from"], "scored_until": scored["as_of_until"]}

    @property
    def trained_until(self) -> datetime:
        """Nothing that became known later went into it."""
        return datetime.fromisoformat(str(self.meta["trained_until"]))


def version_of(ws: Workspace, policy: Policy, name: str | None = None) -> Version:
    """A registered version by name, the champion or else the newest when none is named.

    Raises:
        UnknownName: it was never registered. UsageError: nothing was. ArtifactRefused: its files are not as sealed.
    """
    from registry.artifacts import verify

    state = ws.registrar.state(policy.model)
    if not state.manifests:
        raise UsageError(f"{policy.model}: wanted a registered version, got none; run `seatrial train {policy.model}`")
    chosen = name or state.champion or list(state.manifests)[-1]
    if chosen not in state.manifests:
        raise UnknownName(f"version of {policy.model}", chosen, state.manifests)
    folder = ws.artifacts.path(policy.model, chosen)
    return Version(chosen, folder, verify(folder, state.manifests[chosen])["meta"])


def pair_of(ws: Workspace, policy: Policy, first: str | None, second: str | None) -> tuple[Version, Version]:
    """Two versions: those named; else the champion (the one before the newest when there is none) and the newest other.

    Raises:
        UsageError: there are not two, or they are the same.
    """
    state = ws.registrar.state(policy.model)
    names = list(state.manifests)
    if len(names) < 2:
        got = names[0] if names else "none"
        raise UsageError(f"{policy.model}: wanted two registered versions to compare, got {got}")
    one = first or state.champion or [name for name in names if name != second][-2 if second is None else -1]
    other = second or [name for name in names if name != one][-1]
    if one == other:
        raise UsageError(f"{policy.model}: wanted two different versions, got {one} twice")
    return version_of(ws, policy, one), version_of(ws, policy, other)


def paired(
    ws: Workspace, policy: Policy, versions: tuple[Version, Version], now: datetime, progress: Progress = quiet
) -> Paired:
    """Losses of both versions and the incumbent on rows from which neither can have learnt.

    Decisions since both were trained whose label has matured, answered by both models now; while there are fewer of
    them than the gate needs, the rows that both backtests scored, each answered there by a model fitted before it.

    Raises:
        NotEnoughData: not one row is there of either sort.
    """
    since = max(version.trained_until for version in versions)
    fresh = _answered_now(ws, policy, versions, since, now, progress)
    if len(fresh) >= policy.gate.min_rows:
        words = f"{len(fresh)} rows decided since both were trained ({iso(since)}), labels known by {iso(now)}"
        return Paired(fresh, (versions[0].name, versions[1].name, INCUMBENT), words)
    shared = _backtested(policy, versions)
    if shared.empty and fresh.empty:
        raise NotEnoughData(f"rows of {policy.model} on which neither version can have learnt", 1, 0)
    if shared.empty:
        words = f"only {len(fresh)} rows decided since both were trained ({iso(since)})"
        return Paired(fresh, (versions[0].name, versions[1].name, INCUMBENT), words)
    words = (
        f"{len(shared)} rows that both backtests scored, each answered by a model fitted before it (since both were "
        f"trained, {iso(since)}, only {len(fresh)} rows have matured, the gate needs {policy.gate.min_rows})"
    )
    return Paired(shared, (versions[0].name, versions[1].name, INCUMBENT), words)


def _answered_now(
    ws: Workspace,
    policy: Policy,
    versions: tuple[Version, Version],
    since: datetime,
    now: datetime,
    progress: Progress,
) -> pd.DataFrame:
    from models.design import FrameColumns
    from models.evaluate import Answers, incumbent_answers, scoreboard, segments
    from models.folds import matured, moment, utc_times
    from models.load import load_model

    if now <= since:
        return pd.DataFrame()
    progress("rows", 0.1)
    try:
        everything = training_set(ws, policy, now, progress)
    except NotEnoughData:
        return pd.DataFrame()
    use = matured(everything, now) & (utc_times(everything["as_of"]) >= moment(since))
    rows = everything[use].reset_index(drop=True)
    if rows.empty:
        return rows
    board = scoreboard(policy, ws.declarations, rows)
    losses = {INCUMBENT: board.losses(incumbent_answers(policy, ws.declarations, rows))}
    for version in versions:
        progress(f"answers of {version.name}", 0.6)
        answer = load_model(version.folder).predict(FrameColumns(rows))
        given = Answers(*answer) if isinstance(answer, tuple) else Answers(answer, np.empty((len(rows), 0)))
        losses[version.name] = board.losses(given)
    table = rows[["row_id", "as_of"]].assign(**losses)
    for name, values in segments(policy, ws.declarations, everything, rows).items():
        table[f"segment_{name}"] = values
    return _whole(table, policy, rows.get("step"), tuple(losses))


def _backtested(policy: Policy, versions: tuple[Version, Version]) -> pd.DataFrame:
    """Rows that both backtests scored, with the losses of each version's own folds."""
    first, second = (pd.read_parquet(version.folder / "losses.parquet") for version in versions)
    renamed = first.rename(columns={"candidate": versions[0].name}).drop(columns=["champion", "origin"])
    other = second[["row_id", "as_of", "candidate"]].rename(columns={"candidate": versions[1].name})
    table = renamed.merge(other, on=["row_id", "as_of"], how="inner", validate="one_to_one")
    predictions = pd.read_parquet(versions[0].folder / "predictions.parquet")
    steps = None
    if "step" in predictions:
        steps = table["row_id"].map(predictions.drop_duplicates("row_id").set_index("row_id")["step"])
    return _whole(table, policy, steps, (versions[0].name, versions[1].name, INCUMBENT))


def _whole(table: pd.DataFrame, policy: Policy, steps: Any, contenders: tuple[str, ...]) -> pd.DataFrame:
    """Rows to which all could answer, with the third of the horizon that each lies in."""
    from models.calibration import third_of, thirds

    if steps is not None and policy.horizon is not None:
        ends = thirds(policy.horizon)
        starts = (1, *(end + 1 for end in ends))
        names = np.array([f"{starts[i]}-{end}" for i, end in enumerate(ends)], dtype=object)
        table = table.assign(third=names[third_of(np.asarray(steps, dtype=np.int64), ends)])
    known = np.isfinite(table[list(contenders)].to_numpy(dtype=np.float64)).all(axis=1)
    whole: pd.DataFrame = table[known].sort_values(["as_of", "row_id"], kind="stable").reset_index(drop=True)
    return whole
