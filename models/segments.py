"""Segments of series by what is known of them: volume (ABC), variability (XYZ), smooth or intermittent. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.yaml_file import Strict

Floats = NDArray[np.float64]
VOLUME_SHARES = (0.8, 0.95)
VARIABILITY = (0.5, 1.0)
INTERMITTENT_ZEROS = 0.3


class SegmentRule(Strict):
    """How a series is put into a segment from three figures of its past; plain numbers, saved with a model.

    `volume_cuts`: smallest level of an A series and of a B series, units a period. `variability_cuts`: largest
    coefficient of variation of an X and of a Y series. `zeros`: a share of zero periods above it is intermittent.
    """

    volume_cuts: tuple[float, float]
    variability_cuts: tuple[float, float] = VARIABILITY
    zeros: float = INTERMITTENT_ZEROS

    def name(self, level: Floats, deviation: Floats, zero_share: Floats) -> NDArray[np.object_]:
        """The segment of each of n series, like `A smooth X`; `new` where nothing is known of its level.

        Args:
            level: mean units a period. deviation: standard deviation, units. zero_share: of the known periods.
        """
        volume = np.where(level >= self.volume_cuts[0], "A", np.where(level >= self.volume_cuts[1], "B", "C"))
        with np.errstate(invalid="ignore", divide="ignore"):
            varies = deviation / level
        kind = np.where(varies <= self.variability_cuts[0], "X", np.where(varies <= self.variability_cuts[1], "Y", "Z"))
        shape = np.where(zero_share > self.zeros, "intermittent", "smooth")
        parts: Any = zip(volume, shape, kind, strict=True)
        named = np.array([f"{v} {s} {k}" for v, s, k in parts], dtype=object)
        named[~np.isfinite(level)] = "new"
        return named


def segment_rule(level: Floats) -> SegmentRule:
    """The rule whose A series make up 80% of the volume, A and B together 95%.

    Args:
        level: mean units a period of each series, NaN where unknown.
    """
    known = np.sort(level[np.isfinite(level)])[::-1]
    if not len(known) or known.sum() <= 0:
        return SegmentRule(volume_cuts=(0.0, 0.0))
    before = (np.cumsum(known) - known) / known.sum()
    cuts = [float(known[before < share][-1]) for share in VOLUME_SHARES]
    return SegmentRule(volume_cuts=(cuts[0], cuts[1]))
