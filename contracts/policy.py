"""A model's policy: one strict YAML file with every threshold, step, cooldown and trigger of its life."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from contracts.canonical import content_hash
from contracts.times import Duration, parse_duration
from contracts.yaml_file import Strict, load_strict

Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
Kind = Literal["forecast", "risk"]
LossName = Literal["rmsse", "wql", "brier", "log_loss"]
RungName = Literal["champion", "previous_champion", "incumbent", "refuse"]
Mode = Literal["auto", "approval"]


class Owner(Strict):
    """Who answers for the model, and where notices go."""

    team: str
    notify: tuple[str, ...] = ()


Cost = Annotated[float, Field(ge=0)]


class Costs(Strict):
    """What things cost the business, in `currency`; a policy's replay adds them up.

    `loss`: of one unit of the verdict metric's loss on one decision; `retrain`: of one training; `review`: of a
    person's look at a hold or an approval; `alarm`: of an alert that somebody has to read.
    """

    currency: str = "EUR"
    loss: Cost = 0.0
    retrain: Cost = 0.0
    review: Cost = 0.0
    alarm: Cost = 0.0


class Business(Strict):
    """What the model is for, in the owner's words, and what its mistakes and its upkeep cost."""

    hypothesis: str
    metric: str
    costs: Costs = Costs()


class Training(Strict):
    """How a candidate is trained and backtested.

    `history`: how far back training rows go. `origins`: rolling backtest origins, newest last; `every`: their distance.
    `row_cap`: at most this many training rows a fit (random subset, seeded). `monotone`, of a risk: which way its
    probability may go with a column, 1 (never down as the column rises) or -1; a name without its view counts for
    every view, one without its days for every window.
    """

    history: Duration = parse_duration("365d")
    origins: Annotated[int, Field(ge=1, le=24)] = 3
    every: Duration = parse_duration("14d")
    row_cap: Annotated[int, Field(ge=1000)] = 100_000
    rounds: Annotated[int, Field(ge=10, le=5000)] = 150
    quantiles: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75, 0.9)
    monotone: dict[Name, Literal[-1, 1]] = Field(default_factory=dict)
    seed: int = 7

    @field_validator("quantiles")
    @classmethod
    def _ordered(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if list(value) != sorted(set(value)) or not all(0 < q < 1 for q in value) or 0.5 not in value:
            raise ValueError("quantiles strictly between 0 and 1, rising, with 0.5 among them")
        return value


class Beat(Strict):
    """Relative improvement whose lower confidence bound must exceed the margin (0.02 = 2% less loss)."""

    champion: float = 0.0
    incumbent: float = 0.0


class SegmentRule(Strict):
    """No named segment with at least `min_rows` may lose more than `max_regression` of its loss.

    All segments are judged together at the gate's confidence (Holm's correction), so that many segments do not make a
    good candidate fail by chance.
    """

    by: tuple[str, ...] = ()
    min_rows: Annotated[int, Field(ge=1)] = 200
    max_regression: Annotated[float, Field(ge=0)] = 0.05


class Calibration(Strict):
    """Allowed ranges of calibration: ECE for risks, coverage of the widest interval and |bias| for forecasts."""

    ece_max: Share | None = None
    coverage: tuple[Share, Share] | None = None
    bias_max: Annotated[float, Field(ge=0)] | None = None


class Approvals(Strict):
    """How many people must agree, from which roles, whether the author counts, and how long an approval holds."""

    required: Annotated[int, Field(ge=0)] = 0
    by: tuple[str, ...] = ()
    not_author: bool = True
    expires: Duration = parse_duration("30d")


class Predict(Strict):
    """What one prediction may cost on the machine that trains: p99 of one row, and memory of the loaded model."""

    p99_ms: Annotated[float, Field(gt=0)] | None = None
    memory_mb: Annotated[float, Field(gt=0)] | None = None


class Stability(Strict):
    """How much predictions may move when every numeric input moves by `noise` of its own spread.

    `max_change`: the mean absolute change of the prediction, relative to the predictions' own spread.
    """

    noise: Annotated[float, Field(gt=0, le=1)] = 0.01
    max_change: Annotated[float, Field(gt=0)]


class GatePolicy(Strict):
    """When a candidate may leave the yard.

    `max_data_age`: the newest scored row may be at most this old at the gate.
    """

    metric: LossName
    beat: Beat = Beat()
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    min_rows: Annotated[int, Field(ge=1)] = 200
    segments: SegmentRule = SegmentRule()
    calibration: Calibration = Calibration()
    predict: Predict = Predict()
    stability: Stability | None = None
    max_data_age: Duration | None = None
    approvals: Approvals = Approvals()


class Shadow(Strict):
    """How long a challenger only watches: both bounds must be met."""

    min_decisions: Annotated[int, Field(ge=0)] = 200
    min_days: Annotated[float, Field(ge=0)] = 7


class Canary(Strict):
    """Traffic steps in percent, sticky by `key`; each step bakes at least `bake`.

    `segments`: field -> values that a canary may answer. `max_decisions`: the most that a canary may answer before its
    verdict; then it is held (exposure cap).
    """

    key: str
    steps: tuple[Annotated[int, Field(ge=1, le=100)], ...] = (5, 25, 50, 100)
    bake: Duration = parse_duration("2d")
    segments: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    max_decisions: Annotated[int, Field(ge=1)] | None = None

    @field_validator("steps")
    @classmethod
    def _rising(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or list(value) != sorted(set(value)):
            raise ValueError("at least one step, strictly rising, in percent")
        return value


class Guardrails(Strict):
    """Fast limits while a challenger serves: shares of decisions in `window`, milliseconds, PSI of predictions.

    `window`: besides the whole stage, each span of this length is judged by itself, so that what fails now is not lost
    in a long good past. `invalid_rate`: answers that are not a number or out of range. `failure_limit`: so many looks
    in a row at which no evidence was to be had (not a failure of the model) hold the challenger.
    """

    error_rate: Share = 0.01
    invalid_rate: Share = 0.01
    fallback_rate: Share = 0.05
    p99_ms: Annotated[float, Field(gt=0)] = 25
    prediction_shift_psi: Annotated[float, Field(gt=0)] = 0.25
    min_decisions: Annotated[int, Field(ge=1)] = 50
    failure_limit: Annotated[int, Field(ge=1)] = 5
    window: Duration = parse_duration("1d")


class VerdictRule(Strict):
    """The accuracy verdict on matured labels; `alpha` holds at every look.

    `margin`: a challenger whose mean relative loss difference is worse than this is rejected; `deadline`: then hold.
    """

    metric: LossName
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    min_pairs: Annotated[int, Field(ge=1)] = 200
    margin: Annotated[float, Field(ge=0)] = 0.02
    deadline: Duration = parse_duration("60d")


class Freeze(Strict):
    """A span in which nothing goes forward (rollback, hold and rejection stay possible).

    Either `first` to `last` (both days included, UTC), or the last `quarter_end` days of every quarter.
    """

    reason: str
    first: date | None = None
    last: date | None = None
    quarter_end: Annotated[int, Field(ge=1, le=60)] | None = None

    @field_validator("first", "last", mode="before")
    @classmethod
    def _day(cls, value: object) -> object:
        return date.fromisoformat(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_way(self) -> Freeze:
        spanned = self.first is not None and self.last is not None
        if spanned == (self.quarter_end is not None) or (self.first is None) != (self.last is None):
            raise ValueError("either first and last, or quarter_end")
        if self.first and self.last and self.first > self.last:
            raise ValueError("first not after last")
        return self


class Rollout(Strict):
    """Shadow, canary steps, guardrails, the verdict, when nothing may move, and when a challenger is too old.

    `expires`: a challenger registered longer ago than this, champion not reached, is sent away.
    """

    shadow: Shadow = Shadow()
    canary: Canary
    guardrails: Guardrails = Guardrails()
    verdict: VerdictRule
    freeze: tuple[Freeze, ...] = ()
    expires: Duration = parse_duration("180d")


class Serve(Strict):
    """What may be served, and what comes next when it may not.

    `max_snapshot_age`: refuse to answer from a serving snapshot that nobody has confirmed for so long (the ledger is
    away, or no loop runs); None serves on from the last one, however old.
    """

    max_feature_age: Duration = parse_duration("36h")
    max_snapshot_age: Duration | None = None
    ladder: tuple[RungName, ...] = ("champion", "previous_champion", "incumbent", "refuse")
    max_items: Annotated[int, Field(ge=1, le=10_000)] = 1000

    @field_validator("ladder")
    @classmethod
    def _ends(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value) or not value or value[-1] != "refuse":
            raise ValueError("each rung once, 'refuse' last")
        return value


class Drift(Strict):
    """When the judge looks, at how much, and how strictly.

    `feature_psi`: PSI over this is a drift finding, at most `max_features` features are judged (the most important
    ones). `performance`: a loss over the gate's own figure times this is a performance finding.
    """

    window: Duration = parse_duration("7d")
    every: Duration = parse_duration("7d")
    min_rows: Annotated[int, Field(ge=1)] = 500
    feature_psi: Annotated[float, Field(gt=0)] = 0.2
    prediction_psi: Annotated[float, Field(gt=0)] = 0.25
    performance: Annotated[float, Field(gt=1)] = 1.1
    null_share: Share = 0.5
    max_features: Annotated[int, Field(ge=1)] = 12


class When(Strict):
    """K of the last N judged windows with a violation, or the model's age, or a named business event."""

    violations: Annotated[int, Field(ge=1)] = 2
    of_last: Annotated[int, Field(ge=1)] = 3
    max_age: Duration | None = None
    or_event: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _k_of_n(self) -> When:
        if self.violations > self.of_last:
            raise ValueError("violations at most of_last")
        return self


class Budget(Strict):
    """At most `runs` retrainings in any `per`."""

    runs: Annotated[int, Field(ge=1)] = 4
    per: Duration = parse_duration("30d")


class Retrain(Strict):
    """When the model is trained again."""

    when: When = When()
    veto: Literal["data_broken", "none"] = "data_broken"
    cooldown: Duration = parse_duration("14d")
    budget: Budget = Budget()


class Automate(Strict):
    """What runs by itself and what waits for a person. A rollback by a failed guardrail never waits."""

    retrain: Mode = "auto"
    promote_to_shadow: Mode = "auto"
    promote_to_canary: Mode = "auto"
    promote_to_champion: Mode = "auto"


class Policy(Strict):
    """Everything decided about a model's life, in one versioned value."""

    model: Name
    kind: Kind
    owner: Owner
    business: Business
    features: str
    incumbent: str
    horizon: Annotated[int, Field(ge=1, le=366)] | None = None
    training: Training = Training()
    gate: GatePolicy
    rollout: Rollout
    serve: Serve = Serve()
    drift: Drift = Drift()
    retrain: Retrain = Retrain()
    automate: Automate = Automate()

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Policy:
        forecast = self.kind == "forecast"
        if forecast != (self.horizon is not None):
            raise ValueError("horizon for a forecast, none for a risk")
        allowed = {"rmsse", "wql"} if forecast else {"brier", "log_loss"}
        for metric in (self.gate.metric, self.rollout.verdict.metric):
            if metric not in allowed:
                raise ValueError(f"for a {self.kind} one of {', '.join(sorted(allowed))} as metric, not {metric}")
        return self

    @property
    def hash(self) -> str:
        """SHA-256 of what the policy says otherwise than the defaults; comments and key order do not matter.

        A release that knows more settings gives the same file the same hash.
        """
        return content_hash(self.model_dump(mode="json", exclude_defaults=True))


def load_policy(path: Path) -> Policy:
    """The policy file as an object.

    Raises:
        ConfigInvalid: with file, line, key, what was wanted, what came and the nearest valid key.
        InputInvalid: the file is no readable YAML.
    """
    return load_strict(path, Policy)


def load_policies(folder: Path) -> dict[str, Policy]:
    """Every policy in a folder, by model name."""
    found = [load_policy(path) for path in sorted(folder.glob("*.yaml"))]
    return {policy.model: policy for policy in found}
