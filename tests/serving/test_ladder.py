"""The ladder: best rung that holds, and a reason for every one that did not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from contracts.decisions import Rung, ViewRead
from serving.ladder import Attempt, climb, feature_concerns, rungs

LADDER = ("champion", "previous_champion", "incumbent", "refuse")


def trying(works):
    return lambda rung: Attempt(rung, probability=0.5) if rung in works else Attempt(rung, failure="broken: it is")


@given(st.sets(st.sampled_from([Rung.CANARY, Rung.CHAMPION, Rung.PREVIOUS_CHAMPION, Rung.INCUMBENT])))
def test_first_working_rung_answers_and_every_failure_is_told(works):
    """Whatever works, the answer is the first working rung's and lists exactly the failed rungs above it."""
    order = rungs(LADDER, "canary")
    answer = climb(order, trying(works))
    above = order[: order.index(answer.rung)]
    assert answer.rung is Rung.REFUSE or answer.rung in works
    assert not works.intersection(above)
    assert [words.partition(":")[0] for words in answer.degraded] == [rung.value for rung in above]
    assert (answer.probability is None) == (answer.rung is Rung.REFUSE)


def test_canary_stands_first_only_on_its_own_arm():
    """The champion's arm never tries the canary."""
    assert rungs(LADDER, "canary")[0] is Rung.CANARY
    assert Rung.CANARY not in rungs(LADDER, "champion")


def test_refusal_always_has_a_reason():
    """A ladder of nothing but refusal still says why."""
    assert climb(rungs(("refuse",), "none"), trying(set())).degraded


def test_concerns_name_each_view_once_and_skip_optional_ones():
    """Missing and old views are told once each; at exactly the allowed age nothing is told; a plan may be empty."""
    at = datetime(2026, 1, 1, tzinfo=UTC)

    def read(view, status, age_s=None):
        return ViewRead(view=view, values={}, event_time=at, age_s=age_s, status=status)

    views = [
        read("rates", "missing"),
        read("rates", "missing"),
        read("history", "present", 36 * 3600.0),
        read("price", "present", 36 * 3600.0 + 1),
        read("weather", "stale", 13 * 3600.0),
        read("plan", "missing"),
    ]
    told = feature_concerns(views, frozenset({"plan"}), timedelta(hours=36))
    assert [words.split()[1] for words in told] == ["rates", "price", "weather"]
