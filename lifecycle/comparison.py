"""Two versions of a model and the incumbent rule on the same rows. Pure: losses in, figures out."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from contracts.policy import Policy
from registry.bootstrap import block_bootstrap

INCUMBENT = "incumbent"


@dataclass(frozen=True)
class Paired:
    """Losses of the same rows.

    `losses`: row_id, as_of (UTC), a column of losses >= 0 for each contender, and perhaps `segment_*` and `third`;
    `which`: in words, which rows they are and why none of the contenders can have learnt from them.
    """

    losses: pd.DataFrame
    contenders: tuple[str, ...]
    which: str


def differences(paired: Paired, policy: Policy) -> list[dict[str, Any]]:
    """Each pair of contenders: how much less loss the first has, relative, with bounds by a bootstrap of days.

    The bounds are those of the gate: one-sided each at the policy's confidence, so that between them lies
    2 * confidence - 1 (0.9 at 0.95); None with fewer than four days.
    """
    days = paired.losses["as_of"].dt.tz_convert("UTC").dt.tz_localize(None).to_numpy().astype("datetime64[D]")
    found = []
    for first, second in combinations(paired.contenders, 2):
        figure = block_bootstrap(
            paired.losses[first].to_numpy(dtype=np.float64),
            paired.losses[second].to_numpy(dtype=np.float64),
            np.asarray(days.astype(np.int64), dtype=np.int64),
            confidence=policy.gate.confidence,
            root=policy.gate.metric == "rmsse",
            seed=policy.training.seed,
        )
        found.append(
            {
                "of": first,
                "against": second,
                "less_loss": figure.estimate,
                "lower": figure.lower if np.isfinite(figure.lower) else None,
                "upper": figure.upper if np.isfinite(figure.upper) else None,
                "days": figure.blocks,
                "words": _words(first, second, figure.lower, figure.upper),
            }
        )
    return found


def _words(first: str, second: str, lower: float, upper: float) -> str:
    if not (np.isfinite(lower) and np.isfinite(upper)):
        return "too few days to say"
    if lower > 0:
        return f"{first} is better"
    return f"{second} is better" if upper < 0 else "no difference that these rows can show"


def by_part(paired: Paired, policy: Policy) -> list[dict[str, Any]]:
    """The gate's metric of each contender over all rows, by segment and by third of the horizon, with rows."""
    frame = paired.losses
    parts: list[tuple[str, pd.DataFrame]] = [("all rows", frame)]
    segments = [str(name) for name in frame.columns if str(name).startswith("segment_")]
    for column in [*(["third"] if "third" in frame else []), *segments]:
        word = "step" if column == "third" else column.removeprefix("segment_")
        parts += [(f"{word} {value}", part) for value, part in frame.groupby(column, sort=False)]
    return [
        {"part": word, "rows": len(part)} | {who: _metric(part[who], policy) for who in paired.contenders}
        for word, part in parts
    ]


def _metric(losses: pd.Series[Any], policy: Policy) -> float:
    mean = float(losses.mean())
    return float(np.sqrt(mean)) if policy.gate.metric == "rmsse" else mean


def unlike(first: dict[str, Any], second: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings that two versions do not share: name -> (first's, second's)."""
    names = sorted(set(first) | set(second))
    return {name: (first.get(name), second.get(name)) for name in names if first.get(name) != second.get(name)}
