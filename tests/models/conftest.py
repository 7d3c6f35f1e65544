"""Training sets made up with the very column names that the shipped declarations give."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from contracts.declarations import Declarations, load_declarations
from contracts.policy import Policy, Training, load_policy

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 6, 1, tzinfo=UTC)


def demand_series(days: int, series: int, seed: int, *, signal: bool) -> np.ndarray:
    """Daily units, (series, days): level x weekday shape x noise with signal, plain Poisson noise without."""
    rng = np.random.default_rng(seed)
    level = rng.uniform(3, 30, series)[:, None]
    if not signal:
        return rng.poisson(np.broadcast_to(level, (series, days))).astype(float)
    shape = np.array([0.6, 0.7, 0.8, 1.0, 1.3, 1.8, 0.8])[np.arange(days) % 7][None, :]
    return rng.poisson(level * shape).astype(float)


def history_row(past: np.ndarray, weekday: np.ndarray) -> dict[str, float]:
    """The demand_history columns at a cutoff, from everything before it."""
    row = {f"lag_{i}": past[-i] for i in range(1, 15)}
    for window in (7, 28, 84):
        part = past[-window:]
        row |= {f"mean_{window}": part.mean(), f"std_{window}": part.std(), f"zero_share_{window}": (part == 0).mean()}
    row |= {f"season_mean_{day}": past[weekday == day][-4:].mean() for day in range(7)}
    sold = np.flatnonzero(past > 0)
    return row | {
        "days_since_sale": float(len(past) - 1 - sold[-1]) if len(sold) else float(len(past)),
        "history_days": float(len(past)),
        "scale": max(past[-56:].mean(), 0.2 * past.mean()),
        "naive_rmse": float(np.sqrt(np.mean(np.diff(past) ** 2))),
    }


def demand_rows(
    *, signal: bool = True, series: int = 12, days: int = 200, seed: int = 3, every: int = 3
) -> pd.DataFrame:
    """A demand training set whose last labels become known at NOW."""
    units = demand_series(days, series, seed, signal=signal)
    start = NOW - timedelta(days=days)
    weekday = np.array([(start + timedelta(days=d)).weekday() for d in range(days)])
    rows = []
    for number in range(series):
        for cut in range(100, days, every):
            row = history_row(units[number, :cut], weekday[:cut])
            history = {f"demand_history__{name}": value for name, value in row.items()}
            for step in range(1, 15):
                day = cut + step - 1
                target = start + timedelta(days=day)
                known = day < days
                rows.append(
                    {
                        "row_id": f"s{number}|shop|{(start + timedelta(days=cut)).date()}|{step}",
                        "as_of": start + timedelta(days=cut),
                        "sku": f"s{number}",
                        "location": "shop",
                        "step": step,
                        "target_date": target.date().isoformat(),
                        "label": units[number, day] if known else np.nan,
                        "label_known_at": target + timedelta(days=1) if known else pd.NaT,
                        **history,
                        "price_history__price_last": 2.0,
                        "price_history__price_ratio": 1.0,
                        "price_history__discount_mean": 0.1,
                        "promotion_plan__display": np.nan,
                        "promotion_plan__mailer": 0.0,
                        "weekday": float(target.weekday()),
                        "day_of_month": float(target.day),
                        "week": float(target.isocalendar().week),
                        "month": float(target.month),
                        "is_holiday": 0.0,
                        "days_to_holiday": 14.0,
                        "days_after_holiday": 14.0,
                    }
                )
    frame = pd.DataFrame(rows)
    for name in ("as_of", "label_known_at"):
        frame[name] = pd.to_datetime(frame[name], utc=True).astype("datetime64[us, UTC]")
    return frame


def risk_rows(*, signal: bool = True, n: int = 6000, seed: int = 5, days: int = 120) -> pd.DataFrame:
    """A late-delivery training set: rates carry some signal, hour and weather carry more that no rate knows."""
    rng = np.random.default_rng(seed)
    as_of = np.sort(rng.uniform(0, days, n))
    hour, wind = rng.integers(0, 24, n).astype(float), rng.gamma(2, 5, n)
    carrier, origin = rng.choice(list("ABCD"), n), rng.choice(["EWR", "JFK", "LGA"], n)
    base = np.array([0.1, 0.15, 0.25, 0.35])[np.array([ord(c) - 65 for c in carrier])]
    odds = np.log(base / (1 - base)) + 0.12 * (hour - 12) + 0.1 * (wind - 10)
    late = (rng.uniform(size=n) < (1 / (1 + np.exp(-odds)) if signal else 0.2)).astype(float)
    start = NOW - timedelta(days=days)
    frame = pd.DataFrame({"row_id": [f"f{i}" for i in range(n)], "as_of": start + pd.to_timedelta(as_of, unit="D")})
    frame["label"], frame["label_known_at"] = late, frame["as_of"] + pd.Timedelta(hours=6)
    for view, windows in (
        ("carrier", (1, 7, 30)),
        ("lane", (1, 7, 30)),
        ("carrier_lane", (1, 7, 30)),
        ("origin", (1, 7)),
    ):
        for days_back in windows:
            count = rng.poisson(20.0 * days_back / 7, n).astype(float)
            rate = np.where(count > 0, np.clip(base + rng.normal(0, 0.05, n), 0, 1), np.nan)
            frame[f"{view}_rates__late_rate_{days_back}"] = rate if signal else rng.uniform(0, 0.4, n)
            frame[f"{view}_rates__delay_mean_{days_back}"] = rate * 60
            frame[f"{view}_rates__n_{days_back}"] = count
    for name in ("temperature", "humidity", "precipitation", "pressure", "visibility"):
        frame[f"origin_weather__{name}"] = rng.normal(size=n)
    frame["origin_weather__wind_speed"] = wind
    frame["schedule_hour"], frame["schedule_weekday"] = hour, (as_of.astype(int) % 7).astype(float)
    frame["schedule_month"], frame["planned_hours"], frame["lead_hours"] = 5.0, 3.0, 5.0
    frame["distance_km"], frame["carrier"], frame["origin"] = rng.uniform(200, 4000, n), carrier, origin
    frame["destination"] = rng.choice([f"D{i}" for i in range(20)], n)
    for name in ("as_of", "label_known_at"):
        frame[name] = pd.to_datetime(frame[name], utc=True).astype("datetime64[us, UTC]")
    return frame


@pytest.fixture(scope="session")
def declarations() -> Declarations:
    """The shipped feature declarations."""
    return load_declarations(ROOT / "features" / "repo")


def quick(policy: Policy) -> Policy:
    """The same policy with few and small fits."""
    plan = policy.training
    short = Training(history=plan.history, origins=2, every=plan.every, row_cap=4000, rounds=40, seed=plan.seed)
    segments = policy.gate.segments.model_copy(update={"min_rows": 50})
    return policy.model_copy(update={"training": short, "gate": policy.gate.model_copy(update={"segments": segments})})


@pytest.fixture(scope="session")
def demand_policy() -> Policy:
    """The shipped demand policy, made quick."""
    return quick(load_policy(ROOT / "policies" / "demand.yaml"))


@pytest.fixture(scope="session")
def risk_policy() -> Policy:
    """The shipped late-delivery policy, made quick."""
    return quick(load_policy(ROOT / "policies" / "late_delivery.yaml"))


@pytest.fixture(scope="session")
def demand() -> pd.DataFrame:
    """Demand with a weekly shape."""
    return demand_rows()


@pytest.fixture(scope="session")
def risk() -> pd.DataFrame:
    """Lateness that hour and wind explain."""
    return risk_rows()


@pytest.fixture(scope="session")
def demand_noise() -> pd.DataFrame:
    """Demand without any shape."""
    return demand_rows(signal=False)


@pytest.fixture(scope="session")
def risk_noise() -> pd.DataFrame:
    """Lateness that nothing explains."""
    return risk_rows(signal=False)


@pytest.fixture(scope="session")
def weekly_units() -> np.ndarray:
    """Daily units of five series with a weekly shape over 80 days, (5, 80)."""
    return demand_series(80, 5, 4, signal=True)
