"""Feature declarations: which kinds of feature, over which events, make up which feature service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from contracts.canonical import content_hash
from contracts.policy import Name
from contracts.source_terms import SourceOverride
from contracts.times import Duration, parse_duration
from contracts.yaml_file import Strict, load_strict


class DemandHistory(Strict):
    """Lags, rolling mean/std/zero-share, same-weekday means and days since the last sale, per key, as known at a tick.

    Columns: lag_1..lag_N, mean_W, std_W, zero_share_W, season_mean_0..6 (mean of the last `season_cycles` same
    weekdays, 0 = Monday), days_since_sale, history_days, scale (units a day: max of the mean over 56 days and a fifth
    of the long-run mean), naive_rmse (root mean square of one-day differences over the known history, > 0: the scale
    of RMSSE); then level_A for each of `smoothing` (exponentially weighted mean of the known values, A per cent weight
    on the newest, units a day), and with `last_year` N: last_year_1..N (the value 364 days before the day that is 1..N
    days ahead, NaN where unknown) and last_year_level (the scale's mean as it was 364 days before the tick).
    """

    kind: Literal["demand_history"]
    event: Literal["demand"] = "demand"
    keys: tuple[Name, ...] = ("sku", "location")
    tick: Duration = parse_duration("1d")
    ttl: Duration
    lags: Annotated[int, Field(ge=7, le=90)] = 14
    windows: tuple[int, ...] = (7, 28, 84)
    season_cycles: Annotated[int, Field(ge=1)] = 4
    smoothing: tuple[Annotated[int, Field(ge=1, le=99)], ...] = ()
    last_year: Annotated[int, Field(ge=0, le=90)] = 0


class PriceHistory(Strict):
    """Last price, price relative to its mean over `window` days, and mean discount share, as known at a tick.

    Columns: price_last, price_ratio, discount_mean.
    """

    kind: Literal["price_history"]
    event: Literal["demand"] = "demand"
    keys: tuple[Name, ...] = ("sku", "location")
    tick: Duration = parse_duration("1d")
    ttl: Duration
    window: Annotated[int, Field(ge=2)] = 28


class PromotionPlan(Strict):
    """What is announced for a target date: `fields` of the newest price_promotion event known for (keys, target_date).

    Columns: the fields. Joined on keys + target_date (text, YYYY-MM-DD); event_time is when it was announced.
    """

    kind: Literal["promotion_plan"]
    event: Literal["price_promotion"] = "price_promotion"
    keys: tuple[Name, ...] = ("sku", "location")
    ttl: Duration
    fields: tuple[Literal["promo", "price", "discount", "display", "mailer"], ...] = ("promo",)


class OutcomeRates(Strict):
    """Rolling late rate, mean delay and count of outcomes by when they became **known**, per key, at each tick.

    Columns: late_rate_D, delay_mean_D, n_D for each window of D days, then decayed_rate_H, decayed_n_H (late share and
    number of outcomes where one weighs half as much every H days) for each half-life. An outcome counts in windows that
    end at a tick at or after its known_at, and ages from then: the label's own delay is in the feature. Several `keys`
    make a cross, like vendor and lane.
    """

    kind: Literal["outcome_rates"]
    event: Literal["outcome"] = "outcome"
    keys: tuple[Name, ...]
    tick: Duration = parse_duration("6h")
    ttl: Duration
    windows: Annotated[tuple[int, ...], Field(min_length=1)] = (1, 7, 30)
    half_lives: tuple[Annotated[int, Field(ge=1, le=3650)], ...] = ()


class SignalLatest(Strict):
    """The newest value of each named external signal at a site.

    Columns: the names. The one key holds the signal's `site` (like origin).
    """

    kind: Literal["signal_latest"]
    event: Literal["external_signal"] = "external_signal"
    keys: tuple[Name, ...] = ("origin",)
    ttl: Duration
    names: tuple[Name, ...]


class AttributeHistory(Strict):
    """Attributes of a master table (SCD2: valid_from, valid_to) as they were known to hold at a moment.

    Columns: the names; NaN where no interval holds. A row is written when one of them changes, its event_time is that
    moment, and it holds until the next one: `ttl` is how long without any change (3650d for "for ever"), and the row's
    age is no reason to distrust it. `entity` is the kind of thing in the attribute events; the one key holds its id.
    """

    kind: Literal["attribute_history"]
    event: Literal["attribute"] = "attribute"
    entity: Name
    keys: Annotated[tuple[Name, ...], Field(min_length=1, max_length=1)]
    ttl: Duration = parse_duration("3650d")
    names: Annotated[tuple[Name, ...], Field(min_length=1)]


View = Annotated[
    DemandHistory | PriceHistory | PromotionPlan | OutcomeRates | SignalLatest | AttributeHistory,
    Field(discriminator="kind"),
]


class CalendarFacts(Strict):
    """Pure facts of the request's target date: weekday, day_of_month, week, month, is_holiday, days_to_holiday,
    days_after_holiday (both capped at 14), in `country` (ISO 3166 code) by the library holidays."""

    kind: Literal["calendar"]
    country: Annotated[str, Field(pattern=r"^[A-Z]{2}$")] = "US"


class ScheduleFacts(Strict):
    """Pure facts of a shipment's schedule: schedule_hour, schedule_weekday, schedule_month, planned_hours
    (promised_at - scheduled_at), lead_hours (promised_at - decision time), in `zone`."""

    kind: Literal["schedule"]
    zone: str = "UTC"


class GivenFacts(Strict):
    """Fields of the request itself, numbers or categories, as they are."""

    kind: Literal["given"]
    numbers: tuple[Name, ...] = ()
    categories: tuple[Name, ...] = ()


Facts = Annotated[CalendarFacts | ScheduleFacts | GivenFacts, Field(discriminator="kind")]


class Service(Strict):
    """A versioned set of views and request facts: what one model sees."""

    views: tuple[Name, ...] = Field(min_length=1)
    facts: tuple[Facts, ...] = ()


class Declarations(Strict):
    """One feature repository's `features.yaml`.

    `sources`: source system -> kind of event -> where the source differs from what its contract expects of it
    (frequency, latency, freshness, completeness, refused, ended); no part of what a model sees.
    """

    project: Name = "seatrial"
    views: dict[Name, View]
    services: dict[Name, Service]
    sources: dict[str, dict[Name, SourceOverride]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _views_exist(self) -> Declarations:
        for name, service in self.services.items():
            for view in service.views:
                if view not in self.views:
                    raise ValueError(f"service {name}: a declared view, not {view!r}")
        return self

    def service_hash(self, name: str) -> str:
        """SHA-256 over the service and every view in it: changes when anything that shapes a value changes."""
        service = self.services[name]
        views = {view: self.views[view].model_dump(mode="json") for view in service.views}
        facts = [group.model_dump(mode="json") for group in service.facts]
        return content_hash({"service": name, "views": views, "facts": facts})


def load_declarations(folder: Path) -> Declarations:
    """`features.yaml` of a feature repository.

    Raises:
        ConfigInvalid: with file, line, key, what was wanted, what came and the nearest valid key.
    """
    return load_strict(folder / "features.yaml", Declarations)


def view_columns(view: View) -> tuple[str, ...]:
    """Names of the value columns that a view gives, in order; all are float64."""
    if isinstance(view, DemandHistory):
        lags = [f"lag_{i}" for i in range(1, view.lags + 1)]
        rolling = [f"{what}_{window}" for window in view.windows for what in ("mean", "std", "zero_share")]
        seasons = [f"season_mean_{day}" for day in range(7)]
        year = [f"last_year_{ahead}" for ahead in range(1, view.last_year + 1)]
        levels = [f"level_{share}" for share in view.smoothing] + ([*year, "last_year_level"] if year else [])
        return (*lags, *rolling, *seasons, "days_since_sale", "history_days", "scale", "naive_rmse", *levels)
    if isinstance(view, PriceHistory):
        return ("price_last", "price_ratio", "discount_mean")
    if isinstance(view, PromotionPlan):
        return tuple(view.fields)
    if isinstance(view, OutcomeRates):
        rolling = [f"{what}_{days}" for days in view.windows for what in ("late_rate", "delay_mean", "n")]
        return (*rolling, *(f"{what}_{days}" for days in view.half_lives for what in ("decayed_rate", "decayed_n")))
    return tuple(view.names)


def join_keys(view: View) -> tuple[str, ...]:
    """Join keys of a view, in order; all are text."""
    return (*view.keys, "target_date") if isinstance(view, PromotionPlan) else tuple(view.keys)


def fact_columns(facts: Facts) -> tuple[str, ...]:
    """Names of the columns that a group of request facts gives, in order."""
    if isinstance(facts, CalendarFacts):
        return ("weekday", "day_of_month", "week", "month", "is_holiday", "days_to_holiday", "days_after_holiday")
    if isinstance(facts, ScheduleFacts):
        return ("schedule_hour", "schedule_weekday", "schedule_month", "planned_hours", "lead_hours")
    return (*facts.numbers, *facts.categories)
