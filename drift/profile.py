"""A version's reference: a sample of what it was trained on, what it said about it, and how it did at the gate."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from contracts.declarations import Declarations
from contracts.errors import InputInvalid
from contracts.evaluation import Evaluation
from contracts.policy import LossName, Policy
from contracts.times import iso, parse_time
from drift.frames import judged_columns
from drift.psi import natural_psi
from models.metrics import headline

PROFILE_FORMAT = 1
PREDICTION = "prediction"
_DATA, _FACTS = "reference.parquet", "reference.json"


@dataclass(frozen=True)
class ColumnProfile:
    """One reference column. `kind`: number or category; `quantiles` of a number at 0, .1, .5, .9, 1."""

    name: str
    kind: str
    null_share: float
    natural_psi: float | None
    quantiles: tuple[float, ...] = ()


@dataclass(frozen=True)
class Profile:
    """What `read_profile` gives.

    `sample`: at most max_rows decisions, columns as served plus `prediction`, NaN where there is none; `columns`: most
    important first; `loss`, `incumbent_loss`: headline figures of the backtest on the same rows, NaN when unknown.
    """

    model: str
    metric: LossName
    rows: int
    start: datetime
    end: datetime
    columns: tuple[ColumnProfile, ...]
    prediction: ColumnProfile
    loss: float
    incumbent_loss: float
    sample: pd.DataFrame


def write_profile(
    folder: Path,
    rows: pd.DataFrame,
    predictions: Any,
    policy: Policy,
    declarations: Declarations,
    *,
    evaluation: Evaluation | None = None,
    importance: Sequence[str] = (),
    max_rows: int = 2000,
    seed: int = 7,
) -> Profile:
    """Write reference.parquet and reference.json into a candidate's folder, before it is sealed.

    Args:
        folder: the candidate's folder.
        rows: a training set (entity rows with `as_of` and the service's columns); a forecast's rows are steps, which
            are brought together to one row a (subject, as_of): numbers averaged, categories the first.
        predictions: (n,) aligned with rows, units or probability; best out of sample; NaN where there is none.
        policy, declarations: name the service, the loss and the window.
        evaluation: the candidate's backtest, for the figures that monitoring compares with.
        importance: column names, most important first; others follow in declared order.
        max_rows: size of the sample, drawn evenly over time.
        seed: of the sample's draw.

    Returns:
        the profile as written.

    Raises:
        InputInvalid: no rows, or predictions of another length.
    """
    if not len(rows) or len(predictions) != len(rows):
        wanted = f"{max(len(rows), 1)} rows with a prediction each"
        raise InputInvalid("profile", wanted, f"{len(predictions)} predictions")
    numbers, categories = judged_columns(declarations, policy.features)
    ordered = _decisions(rows, np.asarray(predictions, dtype=np.float64), policy, numbers, categories)
    names = [name for name in (*numbers, *categories) if name in ordered.columns]
    ranked = [*dict.fromkeys(name for name in importance if name in names)]
    ranked += [name for name in names if name not in set(ranked)]
    seconds = ordered["as_of"].astype("datetime64[us, UTC]").astype("int64") // 1_000_000
    groups = (seconds // max(int(policy.drift.window.total_seconds()), 1)).to_numpy()
    columns = tuple(_column(ordered[name], groups, policy, name in categories) for name in ranked)
    scored = ordered[PREDICTION].notna().to_numpy()
    loss, incumbent = _gate_figures(evaluation, policy.gate.metric)
    keep = _draw(scored, max_rows, np.random.default_rng(seed))
    profile = Profile(
        model=policy.model,
        metric=policy.gate.metric,
        rows=len(ordered),
        start=ordered["as_of"].iloc[0].to_pydatetime(),
        end=ordered["as_of"].iloc[-1].to_pydatetime(),
        columns=columns,
        prediction=_column(ordered[PREDICTION][scored], groups[scored], policy, False),
        loss=loss,
        incumbent_loss=incumbent,
        sample=ordered.iloc[keep][[*ranked, PREDICTION]].reset_index(drop=True),
    )
    _write(Path(folder), profile)
    return profile


def read_profile(folder: Path) -> Profile:
    """The profile in an artifact's folder.

    Raises:
        InputInvalid: there is none, or its format is not known.
    """
    path = Path(folder) / _FACTS
    if not path.is_file():
        raise InputInvalid(str(path), "a reference profile", "no such file", hint="train the version again")
    facts = json.loads(path.read_text(encoding="utf-8"))
    if facts.pop("format", None) != PROFILE_FORMAT:
        raise InputInvalid(str(path), f"profile format {PROFILE_FORMAT}", "another")
    loss, incumbent = (float("nan") if facts[name] is None else float(facts[name]) for name in _LOSSES)
    return Profile(
        model=facts["model"],
        metric=facts["metric"],
        rows=int(facts["rows"]),
        loss=loss,
        incumbent_loss=incumbent,
        start=parse_time(facts["start"]),
        end=parse_time(facts["end"]),
        columns=tuple(_read_column(item) for item in facts["columns"]),
        prediction=_read_column(facts["prediction"]),
        sample=pd.read_parquet(Path(folder) / _DATA),
    )


_LOSSES = ("loss", "incumbent_loss")


def _read_column(item: dict[str, Any]) -> ColumnProfile:
    return ColumnProfile(**{**item, "quantiles": tuple(item["quantiles"])})


def _write(folder: Path, profile: Profile) -> None:
    facts: dict[str, Any] = {"format": PROFILE_FORMAT}
    for name, value in vars(profile).items():
        if name == "sample":
            continue
        if name in _LOSSES:
            facts[name] = value if np.isfinite(value) else None
        elif isinstance(value, datetime):
            facts[name] = iso(value)
        elif name == "columns":
            facts[name] = [asdict(column) for column in value]
        else:
            facts[name] = asdict(value) if isinstance(value, ColumnProfile) else value
    folder.mkdir(parents=True, exist_ok=True)
    profile.sample.to_parquet(folder / _DATA, index=False)
    (folder / _FACTS).write_text(json.dumps(facts, indent=1, allow_nan=False), encoding="utf-8")


def _decisions(
    rows: pd.DataFrame, predictions: Any, policy: Policy, numbers: Sequence[str], categories: Sequence[str]
) -> pd.DataFrame:
    """One row a decision, by as_of."""
    frame = rows.assign(**{PREDICTION: predictions})
    if policy.kind == "forecast":
        keys = [name for name in ("sku", "location") if name in frame.columns]
        means = [name for name in (*numbers, PREDICTION) if name in frame.columns]
        firsts = [name for name in categories if name in frame.columns]
        grouped = frame.groupby(["as_of", *keys], sort=True)
        frame = pd.concat([grouped[means].mean(), grouped[firsts].first()], axis=1).reset_index()
    return frame.sort_values("as_of", kind="stable").reset_index(drop=True)


def _draw(scored: Any, max_rows: int, draw: np.random.Generator) -> Any:
    """Places of the sample, in order: all rows alike, then rows without an answer give way to rows with one.

    Only where fewer than a quarter of the sample would carry an answer; the features' part stays even over time.
    """
    keep = draw.permutation(len(scored))[:max_rows]
    lacking = max_rows // 4 - int(scored[keep].sum())
    if lacking > 0:
        more = np.setdiff1d(np.flatnonzero(scored), keep)
        chosen = draw.permutation(more)[:lacking]
        out = keep[~scored[keep]][: len(chosen)] if len(keep) == max_rows else keep[:0]
        keep = np.concatenate([np.setdiff1d(keep, out), chosen])
    return np.sort(keep)


def _column(values: pd.Series, groups: Any, policy: Policy, category: bool) -> ColumnProfile:
    known = values.dropna()
    quantiles: tuple[float, ...] = ()
    if not category and len(known):
        quantiles = tuple(float(q) for q in np.quantile(known.to_numpy(dtype=np.float64), (0, 0.1, 0.5, 0.9, 1)))
    return ColumnProfile(
        name=str(values.name),
        kind="category" if category else "number",
        null_share=float(values.isna().mean()) if len(values) else 1.0,
        natural_psi=natural_psi(values, groups, policy.drift.min_rows) if len(values) else None,
        quantiles=quantiles,
    )


def _gate_figures(evaluation: Evaluation | None, metric: LossName) -> tuple[float, float]:
    """The candidate's and the incumbent's figure on rows where both have a loss; NaN when there are none."""
    if evaluation is None or not len(evaluation.losses):
        return float("nan"), float("nan")
    pair = evaluation.losses[["candidate", "incumbent"]].to_numpy(dtype=np.float64)
    both = pair[np.isfinite(pair).all(axis=1)]
    if not len(both):
        return headline(metric, pair[:, 0]), float("nan")
    return headline(metric, both[:, 0]), headline(metric, both[:, 1])
