"""Weights of statistical members beside the booster, by segment, chosen on past origins and drawn to the whole. Pure.

Source: rolling-origin trials on eight real demand sets: choosing one model a series by its own past was wrong by 12%, a
segment by 3%, and fixed blends harmed where covariates matter; weights that few rows can move are worse than none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from contracts.yaml_file import Strict
from models.metrics import LOSS_BOUND

Floats = NDArray[np.float64]
SHARES = (0.0, 0.15, 0.3, 0.45)
# All members together: past origins are answered by an older booster, which makes the others look too good.
MOST = 0.45
# What rounding leaves of that is no share.
LEAST = 0.01
# A segment of this many rows weighs as much as the whole in its own choice.
PRIOR_ROWS = 2000.0
# A share has to lower the loss by this much before it is taken.
WORTH = 0.003


class Blend(Strict):
    """Shares of members in the published mean, by segment; what a segment does not name is the booster's.

    `shares`: segment -> member -> share in [0, 1], together at most .45; `whole`: for segments that were not seen.
    """

    shares: dict[str, dict[str, float]] = Field(default_factory=dict)
    whole: dict[str, float] = Field(default_factory=dict)

    def members(self) -> tuple[str, ...]:
        """Members with a share anywhere, in order of name."""
        return tuple(
            sorted({m for given in (*self.shares.values(), self.whole) for m, share in given.items() if share})
        )

    def apply(self, booster: Floats, members: Mapping[str, Floats], segment: NDArray[np.object_]) -> Floats:
        """The blended mean, (n,); a member that has no figure for a row (NaN) leaves its share to the booster.

        Args:
            booster: the booster's mean, (n,). members: name -> (n,). segment: of each row, (n,).
        """
        found = booster.copy()
        for name in self.members():
            share = np.array([self.shares.get(str(s), self.whole).get(name, 0.0) for s in segment])
            value = members.get(name)
            if value is not None:
                found += np.where(np.isfinite(value), share * (np.nan_to_num(value) - booster), 0.0)
        return found


def choose_blend(
    actual: Floats,
    booster: Floats,
    members: Mapping[str, Floats],
    unit: Floats,
    segment: NDArray[np.object_],
    shares: Sequence[float] = SHARES,
) -> Blend:
    """Shares with the least squared scaled error on past origins, member after member, never crowding out the booster.

    Args:
        actual, booster: units, (n,), rows of past origins. members: name -> (n,), NaN where it has no figure.
        unit: what an error is divided by, (n,), > 0. segment: of each row. shares: tried, 0 among them.

    Returns:
        a blend; empty where no share lowered the loss by 0.3%.
    """
    names = {str(s): np.flatnonzero(segment == s) for s in sorted({str(s) for s in segment})}
    chosen: dict[str, dict[str, float]] = {name: {} for name in names}
    whole: dict[str, float] = {}
    now = Blend(shares=chosen, whole=whole)
    for member in _by_loss(actual, members, unit):
        before = now.apply(booster, members, segment)
        gains = _gains(actual, before, booster, members[member], unit, shares)
        everywhere = gains.mean(axis=0)
        level = float(_losses(before, actual, unit).mean())
        for name, rows in names.items():
            own = float(_losses(before[rows], actual[rows], unit[rows]).mean())
            trust = len(rows) / (len(rows) + PRIOR_ROWS)
            relative = trust * gains[rows].mean(axis=0) / max(own, 1e-12) + (1 - trust) * everywhere / max(level, 1e-12)
            best = int(np.argmax(relative))
            room = MOST - sum(chosen[name].values())
            if relative[best] > WORTH and room > LEAST:
                chosen[name][member] = float(min(shares[best], room))
        best = int(np.argmax(everywhere))
        if everywhere[best] > WORTH * level and MOST - sum(whole.values()) > LEAST:
            whole[member] = float(min(shares[best], MOST - sum(whole.values())))
        now = Blend(shares=chosen, whole=whole)
    return now


def _losses(forecast: Floats, actual: Floats, unit: Floats) -> Floats:
    """Squared scaled errors, cut where one row would outweigh the choice of all others."""
    return np.asarray(np.minimum(((forecast - actual) / unit) ** 2, LOSS_BOUND["rmsse"]))


def _by_loss(actual: Floats, members: Mapping[str, Floats], unit: Floats) -> list[str]:
    def loss(name: str) -> float:
        errors = _losses(members[name], actual, unit)
        return float(np.nanmean(errors)) if np.isfinite(errors).any() else np.inf

    return sorted(members, key=lambda name: (loss(name), name))


def _gains(actual: Floats, before: Floats, booster: Floats, member: Floats, unit: Floats, shares: Any) -> Floats:
    """How much each share takes off each row's squared scaled error, (n, len(shares)); 0 where there is no figure."""
    base = _losses(before, actual, unit)
    move = np.where(np.isfinite(member), np.nan_to_num(member) - booster, 0.0)
    return np.stack([base - _losses(before + share * move, actual, unit) for share in shares], axis=1)
