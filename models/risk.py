"""The risk classifier: boosted trees, a regression and the pooled rate averaged in log odds, then calibrated."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from contracts.canonical import canonical_json
from contracts.errors import NotEnoughData, UnknownName
from contracts.policy import Training
from models import boosters
from models.artifact_format import FORMAT
from models.design import Columns, DesignSpec, design_matrix
from models.forecaster import spread_gains
from models.linear import RATE_HOWS, LinearScore, fit_linear
from models.risk_calibration import RiskCalibration, logit, sigmoid

Floats = NDArray[np.float64]
FEWEST_ROWS = 200
# Small trees and few groups of categories: with some thousand rows of a past that will not come back, more is noise.
TREES = boosters.RISK | {
    "num_leaves": 15,
    "learning_rate": 0.05,
    "min_data_in_leaf": 60,
    "feature_fraction": 0.4,
    "cat_smooth": 200.0,
    "cat_l2": 100.0,
    "max_cat_threshold": 8,
    "min_data_per_group": 200,
}


class Weights(NamedTuple):
    """Each member's share of the log odds, >= 0, summing to 1; `rule`: of the pooled rate of the finest key."""

    trees: float = 0.6
    linear: float = 0.3
    rule: float = 0.1


class Scores(NamedTuple):
    """Log odds of the members, (n,) each, before averaging and calibration; rule: None without any rate."""

    trees: Floats
    linear: Floats
    rule: Floats | None

    def blend(self, weights: Weights) -> Floats:
        """Weighted mean, (n,)."""
        mixed = weights.trees * self.trees + weights.linear * self.linear
        return mixed if self.rule is None or not weights.rule else mixed + weights.rule * self.rule

    def at(self, rows: NDArray[Any]) -> Scores:
        """The scores of some rows."""
        return Scores(self.trees[rows], self.linear[rows], None if self.rule is None else self.rule[rows])


@dataclass(frozen=True)
class RiskModel:
    """A classifier in memory."""

    spec: DesignSpec
    trees: boosters.Booster
    linear: LinearScore
    weights: Weights = field(default_factory=Weights)
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

    def scores(self, columns: Columns) -> Scores:
        """What each member says, before averaging and calibration."""
        matrix = design_matrix(self.spec, columns)
        return Scores(boosters.ask(self.trees, matrix, raw=True), self.linear.score(matrix), self._rule(matrix))

    def _rule(self, matrix: Floats) -> Floats | None:
        """Mean log odds of the pooled rates of the finest keys."""
        places = self.spec.rule_places
        if not places:
            return None
        return sum((logit(np.ascontiguousarray(matrix[:, p])) for p in places), np.zeros(len(matrix))) / len(places)

    def predict(self, columns: Columns) -> Floats:
        """Probability of being late.

        Args:
            columns: name -> n values, see `columns`.

        Returns:
            (n,) in (0, 1), finite. A row's figure does not depend on the rows beside it.

        Raises:
            InputInvalid: a needed column is missing.
        """
        return self.calibration.apply(self.scores(columns).blend(self.weights))

    def reasons(self, columns: Columns, top: int = 3) -> list[tuple[str, ...]]:
        """What moved each row's probability most, in words, strongest first.

        Args:
            columns: as for `predict`. top: how many columns to name at most.

        Returns:
            one tuple a row, like "carrier_rates__late_rate_7 = 0.41 raises the risk" or "the pooled late rate = 0.41
            raises the risk"; only what moves it.

        Source: exact TreeSHAP contributions of the trees (Lundberg et al. 2020) plus the regression's own terms, and
        the pooled rate's distance from its prior.
        """
        matrix = design_matrix(self.spec, columns)
        parts = self.weights.trees * boosters.contributions(self.trees, matrix)
        terms = self.linear.terms(matrix)
        for number, place in enumerate(self.linear.term_places):
            parts[:, place] += self.weights.linear * terms[:, number]
        # the last column is the trees' mean, which moves nothing: the rule stands there
        rule, prior = self._rule(matrix), np.array([pool.prior for pool in self.spec.pools.values()])
        parts[:, -1] = 0.0 if rule is None else self.weights.rule * (rule - logit(prior).mean())
        matrix = np.column_stack([matrix, np.full(len(matrix), np.nan) if rule is None else sigmoid(rule)])
        found = []
        for row, values in zip(parts, matrix, strict=True):
            order = np.argsort(-np.abs(row), kind="stable")[:top]
            found.append(tuple(self._reason(int(i), row[i], values[i]) for i in order if row[i] != 0))
        return found

    def _reason(self, place: int, part: float, value: float) -> str:
        moves = f"{'raises' if part > 0 else 'lowers'} the risk"
        if place == len(self.spec.columns):
            return f"the pooled late rate = {value:.4g} {moves}"
        column = self.spec.columns[place]
        known = self.spec.categories.get(column.name)
        shown = "unknown" if value != value else f"{value:.4g}"
        if known is not None and value == value:
            shown = known[int(value)] if int(value) < len(known) else "never seen before"
        return f"{column.name} = {shown} {moves}"

    def importance(self) -> dict[str, float]:
        """Share of the trees' gain that falls to each given column, largest first; sums to 1."""
        return spread_gains(self.spec, boosters.gains(self.trees))

    def save(self, folder: Path) -> None:
        """Write spec.json, calibration.json, linear.json and trees.txt; the same model gives the same bytes."""
        folder.mkdir(parents=True, exist_ok=True)
        spec = {
            "format": FORMAT,
            "kind": self.kind,
            "weights": self.weights._asdict(),
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
            weights=_read_weights(spec),
            calibration=RiskCalibration.model_validate_json((folder / "calibration.json").read_text(encoding="utf-8")),
            version_info=spec["version_info"],
        )

    def with_info(self, info: dict[str, Any], weights: Weights, calibration: RiskCalibration) -> RiskModel:
        """The same fits with provenance, the learnt weights and calibration."""
        return replace(self, version_info=info, weights=weights, calibration=calibration)


def _read_weights(spec: dict[str, Any]) -> Weights:
    """As written; format 1 had two members and the share of the second."""
    if "weights" in spec:
        return Weights(**spec["weights"])
    return Weights(1.0 - spec["linear_share"], spec["linear_share"], 0.0)


def signs(spec: DesignSpec, declared: Mapping[str, int]) -> dict[int, int]:
    """Matrix position -> 1 or -1 for the columns that a policy's `monotone` names.

    Args:
        declared: a column of the matrix, or its name without the view, or without view and number of days: `late_rate`
            is every window of every view, and the pooled rates with them.

    Raises:
        UnknownName: no numeric column is meant by a name.
    """
    found: dict[int, int] = {}
    spoken: dict[str, list[int]] = {}
    for place, column in enumerate(spec.columns):
        if column.how != "category":
            short = column.name.rsplit("__", 1)[-1]
            for name in {column.name, short, re.sub(r"_\d+$", "", short), *_pooled_name(column.how)}:
                spoken.setdefault(name, []).append(place)
    for name, sign in declared.items():
        if name not in spoken:
            raise UnknownName("monotone column", name, spoken)
        found |= dict.fromkeys(spoken[name], sign)
    return found


def _pooled_name(how: str) -> tuple[str, ...]:
    return ("late_rate",) if how in RATE_HOWS else ()


def fit_risk(
    spec: DesignSpec, columns: Columns, label: Floats, training: Training, params: dict[str, Any] | None = None
) -> RiskModel:
    """Fit trees and regression on rows whose outcome is known.

    Args:
        spec: the matrix's recipe. columns: name -> n values. label: 1 late, 0 on time, (n,).
        training: rounds, seed and known signs. params: overrides for the trees (see boosters.TUNABLE).

    Raises:
        NotEnoughData: fewer than 200 rows, or only one outcome among them.
        UnknownName: the policy declares a sign of no column.
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
    known = signs(spec, training.monotone)
    held = {"monotone_constraints": [known.get(place, 0) for place in range(len(spec.columns))]} if known else {}
    trees = boosters.fit(data, TREES | held | (params or {}), training.rounds, training.seed)
    return RiskModel(spec=spec, trees=trees, linear=fit_linear(spec, matrix, target, signs=known))
