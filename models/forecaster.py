"""The demand forecaster: boosters of mean and quantiles on series-normalised demand, never negative, never crossing."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from contracts.canonical import canonical_json
from contracts.errors import NotEnoughData
from contracts.policy import Training
from contracts.yaml_file import Strict
from models import boosters
from models.artifact_format import FORMAT
from models.calibration import QuantileShift, tidy
from models.combine import Blend
from models.design import Columns, DesignSpec, design_matrix, scale_of
from models.members import member_values, row_segments
from models.segments import SegmentRule

Floats = NDArray[np.float64]
FEWEST_ROWS = 200


class Corrections(Strict):
    """What a backtest adds to the boosters: shares of statistical members by segment, and the shift of the quantiles.

    `rule`: how a row's segment is named, None when segments do not matter; `shift`: None when none won.
    """

    rule: SegmentRule | None = None
    blend: Blend = Field(default_factory=Blend)
    shift: QuantileShift | None = None


@dataclass(frozen=True)
class ForecastModel:
    """A forecaster in memory.

    `levels`: quantile levels, rising; `horizon`: steps it was trained for; `corrections`: learnt on the backtest;
    `version_info`: who made it when from what.
    """

    spec: DesignSpec
    levels: tuple[float, ...]
    horizon: int
    mean: boosters.Booster
    quantiles: tuple[boosters.Booster, ...]
    corrections: Corrections = field(default_factory=Corrections)
    version_info: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> Literal["forecast"]:
        """Always forecast."""
        return "forecast"

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that `predict` needs."""
        return tuple(dict.fromkeys((*self.spec.sources, "step")))

    def predict(self, columns: Columns) -> tuple[Floats, Floats]:
        """Forecast each row.

        Args:
            columns: name -> n values, see `columns`; `step` 1 is the day that starts at the cutoff.

        Returns:
            mean (n,) and quantiles (n, q) in units; >= 0, quantiles rising in a row; NaN where the series' scale is
            unknown. A row's figures do not depend on the rows beside it.

        Raises:
            InputInvalid: a needed column is missing.
        """
        mean, table = self.raw(columns)
        return self.corrected(columns, mean, table)

    def raw(self, columns: Columns) -> tuple[Floats, Floats]:
        """What the boosters say, before corrections; as `predict`."""
        matrix = design_matrix(self.spec, columns)
        scale = scale_of(self.spec, columns)
        mean = np.maximum(boosters.ask(self.mean, matrix), 0.0) * scale
        table = np.stack([boosters.ask(b, matrix) for b in self.quantiles], axis=1) * scale[:, None]
        return mean, tidy(table)

    def corrected(self, columns: Columns, mean: Floats, table: Floats) -> tuple[Floats, Floats]:
        """The boosters' answers with the corrections; as `predict`."""
        found = self.corrections
        segment = None if found.rule is None else row_segments(self.spec, found.rule, columns)
        names = found.blend.members()
        if names and segment is not None:
            mean = np.maximum(found.blend.apply(mean, member_values(self.spec, columns, names), segment), 0.0)
        if found.shift is not None:
            table = tidy(found.shift.apply(table, np.asarray(columns["step"], dtype=np.int64), segment))
        return mean, table

    def importance(self) -> dict[str, float]:
        """Share of the mean booster's gain that falls to each given column, largest first; sums to 1."""
        return spread_gains(self.spec, boosters.gains(self.mean))

    def save(self, folder: Path) -> None:
        """Write spec.json, calibration.json, mean.txt and one text a quantile; the same model gives the same bytes."""
        folder.mkdir(parents=True, exist_ok=True)
        spec = {
            "format": FORMAT,
            "kind": self.kind,
            "levels": self.levels,
            "horizon": self.horizon,
            "design": self.spec.model_dump(mode="json"),
            "version_info": self.version_info,
        }
        (folder / "spec.json").write_text(canonical_json(spec), encoding="utf-8")
        learnt = self.corrections.model_dump(mode="json")
        (folder / "calibration.json").write_text(canonical_json(learnt), encoding="utf-8")
        (folder / "mean.txt").write_text(boosters.write(self.mean), encoding="utf-8")
        for level, booster in zip(self.levels, self.quantiles, strict=True):
            (folder / _file(level)).write_text(boosters.write(booster), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> ForecastModel:
        """The model that `save` wrote; the files were verified before."""
        spec = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
        learnt = json.loads((folder / "calibration.json").read_text(encoding="utf-8"))
        levels = tuple(spec["levels"])
        return cls(
            spec=DesignSpec.model_validate(spec["design"]),
            levels=levels,
            horizon=spec["horizon"],
            mean=boosters.read((folder / "mean.txt").read_text(encoding="utf-8")),
            quantiles=tuple(boosters.read((folder / _file(q)).read_text(encoding="utf-8")) for q in levels),
            corrections=_read_corrections(learnt),
            version_info=spec["version_info"],
        )

    def with_info(self, info: dict[str, Any], corrections: Corrections) -> ForecastModel:
        """The same boosters with provenance and the learnt corrections."""
        return replace(self, version_info=info, corrections=corrections)


def _read_corrections(learnt: dict[str, Any]) -> Corrections:
    """Of format 2; format 1 knew a shift alone, for all rows."""
    if "blend" not in learnt and learnt.get("shift"):
        return Corrections(shift=QuantileShift.model_validate(learnt["shift"]))
    return Corrections.model_validate(learnt)


def _file(level: float) -> str:
    return f"quantile_{level:g}.txt"


def spread_gains(spec: DesignSpec, gains: Floats) -> dict[str, float]:
    """Gains of matrix columns shared out over the given columns that they are made of, as shares, largest first."""
    shares: dict[str, float] = {}
    for column, gain in zip(spec.columns, gains, strict=True):
        for source in column.sources:
            shares[source] = shares.get(source, 0.0) + float(gain) / len(column.sources)
    total = sum(shares.values()) or 1.0
    return {name: shares[name] / total for name in sorted(shares, key=lambda n: (-shares[n], n))}


def fit_forecast(
    spec: DesignSpec,
    columns: Columns,
    label: Floats,
    training: Training,
    horizon: int,
    params: dict[str, Any] | None = None,
) -> ForecastModel:
    """Fit all boosters on rows whose label is known.

    Args:
        spec: the matrix's recipe. columns: name -> n values. label: demand of the target day, units, (n,), >= 0.
        training: rounds, quantile levels and seed. horizon: steps.
        params: overrides for the mean's booster (see boosters.TUNABLE).

    Raises:
        NotEnoughData: fewer than 200 usable rows.
    """
    scale = scale_of(spec, columns)
    usable = np.isfinite(scale) & np.isfinite(label)
    if usable.sum() < FEWEST_ROWS:
        raise NotEnoughData("forecast training rows with label and scale", FEWEST_ROWS, int(usable.sum()))
    target = np.maximum(label[usable], 0.0) / scale[usable]
    data = boosters.dataset(design_matrix(spec, columns)[usable], target, spec.names, ())
    mean = boosters.fit(data, boosters.MEAN | (params or {}), training.rounds, training.seed)
    rounds = max(int(training.rounds * boosters.QUANTILE_ROUNDS), 10)
    quantiles = tuple(
        boosters.fit(data, boosters.QUANTILE | {"alpha": level}, rounds, training.seed) for level in training.quantiles
    )
    return ForecastModel(spec=spec, levels=training.quantiles, horizon=horizon, mean=mean, quantiles=quantiles)
