"""The late-delivery classifier: boosted trees and a logistic regression averaged in log odds, then calibrated."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from contracts.canonical import canonical_json
from contracts.errors import NotEnoughData
from contracts.policy import Training
from models import boosters
from models.calibration import RiskCalibration
from models.design import Columns, DesignSpec, design_matrix
from models.forecaster import spread_gains
from models.linear import LinearScore, fit_linear

Floats = NDArray[np.float64]
FORMAT = 1
FEWEST_ROWS = 200
DEFAULT_LINEAR_SHARE = 0.5


@dataclass(frozen=True)
class RiskModel:
    """A classifier in memory. `linear_share`: weight of the regression's log odds in [0, 1], the rest is the trees'."""

    spec: DesignSpec
    trees: boosters.Booster
    linear: LinearScore
    linear_share: float = DEFAULT_LINEAR_SHARE
    calibration: RiskCalibration = field(default_factory=RiskCalibration)
    version_info: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> Literal["risk"]:
        """Always risk."""
        return "risk"

    @property
    def levels(self) -> tuple[float, ...]:
        """A probability has no quantiles."""
        return ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that `predict` needs."""
        return self.spec.sources

    def scores(self, columns: Columns) -> tuple[Floats, Floats]:
        """Log odds of the trees and of the logistic regression, (n,) each, before averaging and calibration."""
        matrix = design_matrix(self.spec, columns)
        return boosters.ask(self.trees, matrix, raw=True), self.linear.score(matrix)

    def predict(self, columns: Columns) -> Floats:
        """Probability of being late.

        Args:
            columns: name -> n values, see `columns`.

        Returns:
            (n,) in (0, 1), finite. A row's figure does not depend on the rows beside it.

        Raises:
            InputInvalid: a needed column is missing.
        """
        trees, linear = self.scores(columns)
        return self.calibration.apply(blend(trees, linear, self.linear_share))

    def reasons(self, columns: Columns, top: int = 3) -> list[tuple[str, ...]]:
        """What moved each row's probability most, in words, strongest first.

        Args:
            columns: as for `predict`. top: how many columns to name at most.

        Returns:
            one tuple a row, like "carrier_rates__late_rate_7 = 0.41 raises the risk"; only columns that move it.

        Source: exact TreeSHAP contributions of the trees (Lundberg et al. 2020) plus the regression's own terms.
        """
        matrix = design_matrix(self.spec, columns)
        parts = (1 - self.linear_share) * boosters.contributions(self.trees, matrix)[:, :-1]
        parts[:, list(self.linear.places)] += self.linear_share * self.linear.terms(matrix)
        found = []
        for row, values in zip(parts, matrix, strict=True):
            order = np.argsort(-np.abs(row), kind="stable")[:top]
            found.append(tuple(self._reason(int(i), row[i], values[i]) for i in order if row[i] != 0))
        return found

    def _reason(self, place: int, part: float, value: float) -> str:
        column = self.spec.columns[place]
        known = self.spec.categories.get(column.name)
        shown = "unknown" if value != value else f"{value:.4g}"
        if known is not None and value == value:
            shown = known[int(value)] if int(value) < len(known) else "never seen before"
        return f"{column.name} = {shown} {'raises' if part > 0 else 'lowers'} the risk"

    def importance(self) -> dict[str, float]:
        """Share of the trees' gain that falls to each given column, largest first; sums to 1."""
        return spread_gains(self.spec, boosters.gains(self.trees))

    def save(self, folder: Path) -> None:
        """Write spec.json, calibration.json, linear.json and trees.txt; the same model gives the same bytes."""
        folder.mkdir(parents=True, exist_ok=True)
        spec = {
            "format": FORMAT,
            "kind": self.kind,
            "linear_share": self.linear_share,
            "design": self.spec.model_dump(mode="json"),
            "version_info": self.version_info,
        }
        (folder / "spec.json").write_text(canonical_json(spec), encoding="utf-8")
        (folder / "calibration.json").write_text(canonical_json(self.calibration.model_dump()), encoding="utf-8")
        (folder / "linear.json").write_text(canonical_json(self.linear.model_dump()), encoding="utf-8")
        (folder / "trees.txt").write_text(boosters.write(self.trees), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> RiskModel:
        """The model that `save` wrote; the files were verified before."""
        spec = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
        return cls(
            spec=DesignSpec.model_validate(spec["design"]),
            trees=boosters.read((folder / "trees.txt").read_text(encoding="utf-8")),
            linear=LinearScore.model_validate_json((folder / "linear.json").read_text(encoding="utf-8")),
            linear_share=spec["linear_share"],
            calibration=RiskCalibration.model_validate_json((folder / "calibration.json").read_text(encoding="utf-8")),
            version_info=spec["version_info"],
        )

    def with_info(self, info: dict[str, Any], linear_share: float, calibration: RiskCalibration) -> RiskModel:
        """The same fits with provenance, the learnt share and calibration."""
        return replace(self, version_info=info, linear_share=linear_share, calibration=calibration)


def blend(trees: Floats, linear: Floats, linear_share: float) -> Floats:
    """Weighted mean of two log odds, (n,)."""
    return (1.0 - linear_share) * trees + linear_share * linear


def fit_risk(
    spec: DesignSpec, columns: Columns, label: Floats, training: Training, params: dict[str, Any] | None = None
) -> RiskModel:
    """Fit trees and regression on rows whose outcome is known.

    Args:
        spec: the matrix's recipe. columns: name -> n values. label: 1 late, 0 on time, (n,).
        training: rounds and seed. params: overrides for the trees (see boosters.TUNABLE).

    Raises:
        NotEnoughData: fewer than 200 rows, or only one outcome among them.
    """
    usable = np.isfinite(label)
    rarer = int(min((label[usable] > 0.5).sum(), (label[usable] <= 0.5).sum()))
    if usable.sum() < FEWEST_ROWS:
        raise NotEnoughData("risk training rows with a known outcome", FEWEST_ROWS, int(usable.sum()))
    if not rarer:
        raise NotEnoughData("risk training rows with the rarer outcome", 1, 0)
    matrix, target = design_matrix(spec, columns)[usable], label[usable]
    categorical = [c.name for c in spec.columns if c.how == "category"]
    data = boosters.dataset(matrix, target, spec.names, categorical)
    trees = boosters.fit(data, boosters.RISK | (params or {}), training.rounds, training.seed)
    return RiskModel(spec=spec, trees=trees, linear=fit_linear(spec, matrix, target))
