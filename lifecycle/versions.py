"""Registered versions side by side: which rows both can be judged on, and what went into each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from contracts.errors import NotEnoughData, UnknownName, UsageError
from contracts.policy import Policy
from lifecycle.comparison import INCUMBENT, Paired
from lifecycle.pipeline import training_set
from lifecycle.progress import Progress, quiet
from lifecycle.workspace import Workspace

Floats = NDArray[np.float64]
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

    The first of these that has as many rows as the gate needs, else the one with the most: decisions since both were
    trained whose label has matured, answered by both now; those of the newer one's backtest since the older was
    trained, answered by the older now and by the newer's backtest then; those that both backtests scored. A backtest
    answers with a model fitted before the decision.

    Raises:
        NotEnoughData: not one row is there of any sort.
    """
    older, newer = sorted(versions, key=lambda version: version.trained_until)
    contenders = (versions[0].name, versions[1].name, INCUMBENT)
    best: Paired | None = None
    for found, words in (
        (_since_both(ws, policy, older, newer, now, progress), f"decided since {newer.name} was trained"),
        (
            _since_older(ws, policy, older, newer, progress),
            f"of the backtest of {newer.name}, decided since {older.name} was trained",
        ),
        (_both_backtests(policy, older, newer), "that both backtests scored"),
    ):
        if not found.empty and (best is None or len(found) > len(best.losses)):
            span = f"{found['as_of'].min():%Y-%m-%d} to {found['as_of'].max():%Y-%m-%d}"
            best = Paired(found, contenders, f"{len(found)} rows {words}, {span}")
        if best is not None and len(best.losses) >= policy.gate.min_rows:
            return best
    if best is None:
        raise NotEnoughData(f"rows of {policy.model} on which neither version can have learnt", 1, 0)
    return best


def _since_both(
    ws: Workspace, policy: Policy, older: Version, newer: Version, now: datetime, progress: Progress
) -> pd.DataFrame:
    from models.evaluate import incumbent_answers, scoreboard, segments
    from models.folds import matured, moment, utc_times

    try:
        everything = training_set(ws, policy, now, progress)
    except NotEnoughData:
        return pd.DataFrame()
    use = matured(everything, now) & (utc_times(everything["as_of"]) >= moment(newer.trained_until))
    rows = everything[use].reset_index(drop=True)
    if rows.empty:
        return rows
    incumbent = scoreboard(policy, ws.declarations, rows).losses(incumbent_answers(policy, ws.declarations, rows))
    table = rows[["row_id", "as_of"]].assign(**{INCUMBENT: incumbent})
    for version in (older, newer):
        progress(f"answers of {version.name}", 0.6)
        table[version.name] = _losses(ws, policy, version, rows)
    for name, values in segments(policy, ws.declarations, everything, rows).items():
        table[f"segment_{name}"] = values
    return _whole(table, policy, rows.get("step"))


def _losses(ws: Workspace, policy: Policy, version: Version, rows: pd.DataFrame) -> Floats:
    """Loss of a version's own answers to these rows, NaN where it has none."""
    from models.design import FrameColumns
    from models.evaluate import Answers, scoreboard
    from models.load import load_model

    answer = load_model(version.folder).predict(FrameColumns(rows))
    given = Answers(*answer) if isinstance(answer, tuple) else Answers(answer, np.empty((len(rows), 0)))
    return scoreboard(policy, ws.declarations, rows).losses(given)


def _since_older(ws: Workspace, policy: Policy, older: Version, newer: Version, progress: Progress) -> pd.DataFrame:
    from models.training import seeded

    scored = _backtested(newer)
    scored = scored[scored["as_of"] >= older.trained_until]
    if scored.empty:
        return scored
    seed = newer.settings.get("seed")
    everything = training_set(ws, seeded(policy, seed), newer.trained_until, progress)
    rows = everything[everything["row_id"].isin(scored["row_id"])].reset_index(drop=True)
    if rows.empty:
        return rows
    progress(f"answers of {older.name}", 0.6)
    table = rows[["row_id"]].assign(**{older.name: _losses(ws, policy, older, rows)})
    return _whole(scored.merge(table, on="row_id", how="inner", validate="one_to_one"), policy, None)


def _both_backtests(policy: Policy, older: Version, newer: Version) -> pd.DataFrame:
    other = _backtested(older)[["row_id", "as_of", older.name]]
    return _whole(_backtested(newer).merge(other, on=["row_id", "as_of"], validate="one_to_one"), policy, None)


def _backtested(version: Version) -> pd.DataFrame:
    """What a version's backtest scored: its losses under its name, the incumbent's, segments and step."""
    losses = pd.read_parquet(version.folder / "losses.parquet").rename(columns={"candidate": version.name})
    predictions = pd.read_parquet(version.folder / "predictions.parquet")
    if "step" in predictions:
        losses["step"] = losses["row_id"].map(predictions.drop_duplicates("row_id").set_index("row_id")["step"])
    return losses.drop(columns=["champion", "origin"])


def _whole(table: pd.DataFrame, policy: Policy, steps: pd.Series[Any] | None) -> pd.DataFrame:
    """Rows to which all could answer, with the third of the horizon that each lies in."""
    from models.calibration import third_of, thirds

    steps = table.get("step") if steps is None else steps
    losses = table.drop(columns=[name for name in ("row_id", "as_of", "step") if name in table])
    numbers = losses.select_dtypes("number").to_numpy(dtype=np.float64)
    if steps is not None and policy.horizon is not None:
        ends = thirds(policy.horizon)
        starts = (1, *(end + 1 for end in ends))
        names = np.array([f"{starts[i]}-{end}" for i, end in enumerate(ends)], dtype=object)
        table = table.assign(third=names[third_of(steps.to_numpy(dtype=np.int64), ends)])
    known = np.flatnonzero(np.isfinite(numbers).all(axis=1))
    return table.take(known.tolist()).sort_values(["as_of", "row_id"], kind="stable").reset_index(drop=True)
