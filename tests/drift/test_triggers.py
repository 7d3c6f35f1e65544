"""Retraining triggers: K of N, cooldown, budget, veto, age, events, flapping."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from contracts.errors import TimeInvalid
from contracts.monitoring import Finding, Health, Response, WindowVerdict
from contracts.policy import Policy
from contracts.times import SetClock, parse_duration
from drift.triggers import respond

SINCE = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def window(day: float, health: Health = Health.DEGRADED) -> WindowVerdict:
    kind = {Health.BROKEN: "broken_data", Health.DEGRADED: "performance"}.get(health, "feature_drift")
    finding = Finding(kind, "x", 1.5, 1.1, f"{health.value} at day {day}")
    end = SINCE + day * DAY
    return WindowVerdict("late_delivery", "v1", end - 14 * DAY, end, health, (finding,), 500, 400)


def test_one_bad_window_alerts_and_two_of_three_retrain(risk_policy: Policy) -> None:
    """One violation is an alert, K of the last N judged windows are a retraining."""
    one = respond([window(7)], [], SINCE, risk_policy, SINCE + 7 * DAY)
    two = respond([window(7), window(14, Health.OK), window(21)], [], SINCE, risk_policy, SINCE + 21 * DAY)
    spread = [window(7), window(14, Health.OK), window(21, Health.OK), window(28)]
    old = respond(spread, [], SINCE, risk_policy, SINCE + 28 * DAY)
    assert one.response is Response.ALERT
    assert two.response is Response.RETRAIN
    assert "2 of the last 3" in two.reason
    assert old.response is Response.ALERT


def test_windows_without_enough_data_do_not_push_judged_ones_out(risk_policy: Policy) -> None:
    """An unjudged window neither counts nor hides the violations before it."""
    windows = [window(7), *(window(7 + k, Health.NOT_ENOUGH) for k in range(1, 5)), window(14)]
    assert respond(windows, [], SINCE, risk_policy, SINCE + 14 * DAY).response is Response.RETRAIN


def test_not_enough_data_is_said_and_is_not_no_drift(risk_policy: Policy) -> None:
    """Without a judged window the answer says that there is not enough data."""
    none = respond([], [], SINCE, risk_policy, SINCE + DAY)
    few = respond([window(7, Health.NOT_ENOUGH)], [], SINCE, risk_policy, SINCE + 7 * DAY)
    assert none.response is few.response is Response.NOTHING
    assert "not enough data" in none.reason
    assert "not enough data" in few.reason


def test_broken_data_vetoes_a_retraining(risk_policy: Policy) -> None:
    """Two violations and a broken newest window: alert, never a training on broken data."""
    windows = [window(7), window(14), window(21, Health.BROKEN)]
    said = respond(windows, [], SINCE, risk_policy, SINCE + 21 * DAY, ["carrier_change"])
    assert said.response is Response.ALERT
    assert "broken at day 21" in said.reason
    free = risk_policy.model_copy(update={"retrain": risk_policy.retrain.model_copy(update={"veto": "none"})})
    assert respond(windows, [], SINCE, free, SINCE + 21 * DAY).response is Response.RETRAIN


def test_too_little_data_after_a_broken_window_does_not_lift_its_veto(risk_policy: Policy) -> None:
    """A source that went silent after it broke is not mended; the next judged window that is not broken is."""
    windows = [window(7), window(14), window(21, Health.BROKEN), window(28, Health.NOT_ENOUGH)]
    now = SINCE + 35 * DAY
    assert "data is broken" in respond(windows, [], SINCE, risk_policy, now, ["carrier_change"]).reason
    mended = [*windows, window(35, Health.DEGRADED)]
    assert respond(mended, [], SINCE, risk_policy, now, ["carrier_change"]).response is Response.RETRAIN


@pytest.mark.parametrize(("days", "response"), [(27.999, Response.ALERT), (28, Response.RETRAIN)])
def test_cooldown_holds_to_its_last_moment(risk_policy: Policy, days: float, response: Response) -> None:
    """Inside the cooldown a wish is an alert; at its end it is a retraining."""
    now = SINCE + 50 * DAY
    said = respond([window(36), window(43)], [now - days * DAY], SINCE, risk_policy, now)
    assert said.response is response


def test_budget_is_a_limit_of_its_own(risk_policy: Policy) -> None:
    """With the cooldown over, a spent budget still holds a retraining back."""
    now = SINCE + 60 * DAY
    started = [now - 30 * DAY, now - 59 * DAY]
    said = respond([window(50), window(57)], started, SINCE, risk_policy, now)
    assert said.response is Response.ALERT
    assert "budget" in said.reason
    earlier = respond([window(50), window(57)], [now - 60 * DAY, now - 30 * DAY], SINCE, risk_policy, now)
    assert earlier.response is Response.RETRAIN


def test_age_and_named_events_are_reasons_and_others_are_not(risk_policy: Policy) -> None:
    """A champion of max_age, or an event that the policy names, is a reason without any violation."""
    fine = [window(59, Health.OK)]
    assert respond(fine, [], SINCE, risk_policy, SINCE + 59 * DAY).response is Response.NOTHING
    assert respond(fine, [], SINCE, risk_policy, SINCE + 60 * DAY).response is Response.RETRAIN
    assert "carrier_change" in respond(fine, [], SINCE, risk_policy, SINCE + 59 * DAY, ["carrier_change"]).reason
    assert respond(fine, [], SINCE, risk_policy, SINCE + 59 * DAY, ["picnic"]).response is Response.NOTHING


def test_approval_mode_waits_for_a_person(risk_policy: Policy) -> None:
    """With automate.retrain: approval the wish is an alert."""
    mode = risk_policy.automate.model_copy(update={"retrain": "approval"})
    policy = risk_policy.model_copy(update={"automate": mode})
    said = respond([window(7), window(14)], [], SINCE, policy, SINCE + 14 * DAY)
    assert said.response is Response.ALERT
    assert "person" in said.reason


@pytest.mark.parametrize("flap", [1, 2, 3])
def test_flapping_for_30_days_gives_at_most_one_retraining_a_cooldown(risk_policy: Policy, flap: int) -> None:
    """Verdicts that flap every few hours on a virtual clock never start two retrainings within one cooldown."""
    rule = risk_policy.retrain.model_copy(update={"cooldown": parse_duration("7d")})
    policy = risk_policy.model_copy(update={"retrain": rule})
    clock, windows, started = SetClock(SINCE), [], []
    for hour in range(30 * 24):
        clock.set(SINCE + timedelta(hours=hour))
        windows.append(window(hour / 24, Health.DEGRADED if hour // flap % 2 else Health.OK))
        if respond(windows, started, SINCE, policy, clock.now()).response is Response.RETRAIN:
            started.append(clock.now())
    gaps = [later - earlier for earlier, later in pairwise(started)]
    assert 1 <= len(started) <= rule.budget.runs
    assert all(gap >= rule.cooldown for gap in gaps)


def test_times_without_zone_are_refused(risk_policy: Policy) -> None:
    """A naive moment raises instead of being read as some zone."""
    with pytest.raises(TimeInvalid):
        respond([], [], SINCE, risk_policy, datetime(2026, 1, 1))  # noqa: DTZ001


def test_unsafe_sources_veto_a_retraining(risk_policy: Policy) -> None:
    """A wish is held back with the sources' own words while one is not safe; without a wish nothing is."""
    windows, words = [window(7), window(14)], ["flights outcome: nothing came for 5 days"]
    said = respond(windows, [], SINCE, risk_policy, SINCE + 14 * DAY, unsafe=words)
    assert said.response is Response.ALERT
    assert "not safe for automation: flights outcome: nothing came for 5 days" in said.reason
    assert respond(windows, [], SINCE, risk_policy, SINCE + 14 * DAY).response is Response.RETRAIN
    free = risk_policy.model_copy(update={"retrain": risk_policy.retrain.model_copy(update={"veto": "none"})})
    assert respond(windows, [], SINCE, free, SINCE + 14 * DAY, unsafe=words).response is Response.RETRAIN
    quiet = respond([window(7, Health.OK)], [], SINCE, risk_policy, SINCE + 7 * DAY, unsafe=words)
    assert quiet.response is Response.NOTHING


def test_an_overridden_window_neither_counts_nor_alerts_nor_vetoes(risk_policy: Policy) -> None:
    """Once a person overrode a window's alarm, it is as if nobody had judged it; the others still count."""
    now, bad = SINCE + 21 * DAY, [window(7), window(14, Health.OK), window(21)]
    assert respond(bad, [], SINCE, risk_policy, now).response is Response.RETRAIN
    said = respond(bad, [], SINCE, risk_policy, now, overridden=(bad[-1].end,))
    assert said.response is Response.NOTHING
    assert "a person overrode" in said.reason
    broken = [window(7), window(14), window(21, Health.BROKEN)]
    assert respond(broken, [], SINCE, risk_policy, now).response is Response.ALERT
    assert respond(broken, [], SINCE, risk_policy, now, overridden=(now,)).response is Response.RETRAIN
