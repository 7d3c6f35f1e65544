"""From a backtest to an evaluation: paired losses row by row, and metrics by segment and by third of the horizon."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from contracts.declarations import Declarations, join_keys
from contracts.errors import NotEnoughData, UnknownName
from contracts.evaluation import METRIC_COLUMNS, Evaluation
from contracts.policy import Policy
from models import metrics
from models.calibration import third_of, thirds
from models.design import FrameColumns
from models.incumbent import history_view, rate_views, rolling_late_rate, seasonal_naive

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
MOST_SEGMENTS = 40
VOLUME_SHARES = ((0.8, "A"), (0.95, "B"), (np.inf, "C"))


@dataclass(frozen=True)
class Answers:
    """One competitor's answers to the scored rows: mean or probability (n,), and quantiles (n, q), q = 0 for a risk.

    `rows`: hash of the rows that were asked about (see rows_hash), "" when nobody noted it.
    """

    value: Floats
    quantiles: Floats
    rows: str = ""


def rows_hash(rows: pd.DataFrame) -> str:
    """SHA-256 over `row_id` and `label`, in order: losses on other rows, or against other labels, do not compare."""
    digest = hashlib.sha256("\x1f".join(rows["row_id"].astype(str)).encode())
    digest.update(rows["label"].to_numpy(dtype=np.float64, na_value=np.nan).tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Scoreboard:
    """The scored rows with what it takes to judge answers to them."""

    policy: Policy
    rows: pd.DataFrame
    actual: Floats
    naive_rmse: Floats
    scale: Floats

    def losses(self, answers: Answers) -> Floats:
        """Gate loss of each row, NaN where there is no answer."""
        loss = self.policy.gate.metric
        if self.policy.kind == "risk":
            return metrics.risk_losses(loss, self.actual, answers.value)
        levels = self.policy.training.quantiles
        return metrics.forecast_losses(
            loss, self.actual, answers.value, answers.quantiles, levels, self.naive_rmse, self.scale
        )

    def figures(self, answers: Answers, mask: Mask) -> dict[str, float]:
        """Metrics over the rows of `mask`, all of which have an answer."""
        actual, value = self.actual[mask], answers.value[mask]
        if self.policy.kind == "risk":
            return {
                "brier": metrics.brier(actual, value),
                "log_loss": metrics.log_loss(actual, value),
                "auc": metrics.auc(actual, value),
                "ece": metrics.ece(actual, value),
            }
        table, levels = answers.quantiles[mask], self.policy.training.quantiles
        return {
            "rmsse": metrics.rmsse(actual, value, metrics.error_unit(self.naive_rmse[mask], self.scale[mask])),
            "wql": metrics.wql(actual, table, levels),
            "wape": metrics.wape(actual, value),
            "bias": metrics.bias(actual, value),
            "coverage": metrics.coverage(actual, table[:, 0], table[:, -1]),
        }


def scoreboard(policy: Policy, declarations: Declarations, rows: pd.DataFrame) -> Scoreboard:
    """The rows to be scored, with RMSSE's scale and the level of each row's series as known at its cutoff."""
    actual = rows["label"].to_numpy(dtype=np.float64)
    if policy.kind == "risk":
        nothing = np.ones(len(rows))
        return Scoreboard(policy, rows, actual, nothing, nothing)
    view = history_view(declarations, policy.features)
    naive, scale = (rows[f"{view}__{name}"].to_numpy(dtype=np.float64) for name in ("naive_rmse", "scale"))
    return Scoreboard(policy, rows, actual, naive, scale)


def incumbent_answers(policy: Policy, declarations: Declarations, rows: pd.DataFrame) -> Answers:
    """What the policy's incumbent rule answers to these rows."""
    columns = FrameColumns(rows)
    if policy.kind == "risk":
        rate = rolling_late_rate(columns, rate_views(declarations, policy.features))
        return Answers(rate, np.empty((len(rows), 0)), rows_hash(rows))
    view = history_view(declarations, policy.features)
    return Answers(*seasonal_naive(columns, view, policy.training.quantiles), rows_hash(rows))


def segments(
    policy: Policy, declarations: Declarations, everything: pd.DataFrame, rows: pd.DataFrame
) -> dict[str, Any]:
    """Segment value of each of `rows`, as text, for every name in the policy: a column, or `volume`.

    volume: A for the series that make up the first 80% of demand in `everything`, B up to 95%, C the rest.
    """
    found: dict[str, Any] = {}
    for name in policy.gate.segments.by:
        if name in rows.columns:
            found[name] = rows[name].astype("string").fillna("unknown").to_numpy(dtype=object)
        elif name == "volume" and policy.kind == "forecast":
            found[name] = _volumes(policy, declarations, everything, rows)
        else:
            raise UnknownName("segment", name, [*map(str, rows.columns), "volume"])
    return found


def _volumes(policy: Policy, declarations: Declarations, everything: pd.DataFrame, rows: pd.DataFrame) -> Any:
    keys = list(join_keys(declarations.views[history_view(declarations, policy.features)]))
    level = everything.groupby(keys, sort=True)["label"].mean().fillna(0.0).sort_values(ascending=False, kind="stable")
    before = (level.cumsum() - level) / max(float(level.sum()), 1e-9)
    names = np.select([before < share for share, _ in VOLUME_SHARES], [name for _, name in VOLUME_SHARES], "C")
    table = pd.Series(names, index=level.index)
    return table.reindex(pd.MultiIndex.from_frame(rows[keys])).to_numpy(dtype=object)


def evaluate(
    board: Scoreboard,
    answers: Mapping[str, Answers],
    origin: Any,
    named: Mapping[str, Any],
    dataset: dict[str, Any],
) -> Evaluation:
    """An evaluation over the rows that both candidate and incumbent could answer.

    Args:
        board: scored rows.
        answers: by who: candidate, incumbent, and perhaps champion with NaN where it does not count.
        origin: fold origin of each row. named: segment name -> text of each row. dataset: what was scored.

    Raises:
        NotEnoughData: no row has both answers.
    """
    losses = {who: board.losses(given) for who, given in answers.items()}
    both = np.isfinite(losses["candidate"]) & np.isfinite(losses["incumbent"])
    if not both.any():
        raise NotEnoughData("scored rows that candidate and incumbent could both answer", 1, 0)
    table = pd.DataFrame({"row_id": board.rows["row_id"].to_numpy(), "as_of": board.rows["as_of"].to_numpy()})
    table["as_of"] = pd.to_datetime(table["as_of"], utc=True).astype("datetime64[us, UTC]")
    table["origin"] = pd.to_datetime(pd.Series(origin), utc=True).astype("datetime64[us, UTC]")
    for who in ("candidate", "incumbent", "champion"):
        table[who] = losses.get(who, np.full(len(table), np.nan))
    for name, values in named.items():
        table[f"segment_{name}"] = values
    figures = _metrics(board, answers, losses, both, named)
    candidate = board.figures(answers["candidate"], both)
    shown = ("ece",) if board.policy.kind == "risk" else ("coverage", "bias")
    return Evaluation(
        losses=table[both].sort_values(["as_of", "row_id"], kind="stable").reset_index(drop=True),
        metrics=figures,
        loss=board.policy.gate.metric,
        dataset=dataset
        | {"rows": int(both.sum()), "not_comparable": int((~both).sum())}
        | {"hash_by_side": {who: given.rows for who, given in answers.items()}},
        calibration={name: candidate[name] for name in shown},
        reference_loss=float(losses["candidate"][both].mean()),
    )


def _metrics(
    board: Scoreboard,
    answers: Mapping[str, Answers],
    losses: Mapping[str, Floats],
    both: Mask,
    named: Mapping[str, Any],
) -> pd.DataFrame:
    cuts: list[tuple[str, str, Mask]] = [("", "", both)]
    if board.policy.horizon is not None:
        ends = thirds(board.policy.horizon)
        part = third_of(board.rows["step"].to_numpy(dtype=np.int64), ends)
        starts = (1, *(end + 1 for end in ends))
        cuts += [("", f"horizon={starts[i]}-{end}", both & (part == i)) for i, end in enumerate(ends)]
    for name, values in named.items():
        counts = pd.Series(values[both]).value_counts()
        largest = sorted(str(value) for value in counts.index[:MOST_SEGMENTS])
        cuts += [(f"{name}={value}", "", both & (values == value)) for value in largest]
    lines = []
    for who, given in answers.items():
        for segment, piece, mask in cuts:
            use = mask & np.isfinite(losses[who])
            if use.any():
                rows = int(use.sum())
                lines += [(who, n, segment, piece, v, rows) for n, v in board.figures(given, use).items()]
    return pd.DataFrame(lines, columns=list(METRIC_COLUMNS))
