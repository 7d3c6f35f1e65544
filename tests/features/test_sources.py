"""Sources say how far they can be trusted, and a stopped one shows its age growing."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from open_data_contract_standard.model import OpenDataContractStandard

from contracts.declarations import Declarations, load_declarations
from contracts.errors import ConfigInvalid, UnknownName
from contracts.events import event_kinds
from contracts.mapping import load_mapping
from contracts.source_terms import SourceOverride, SourceTerms, contract_terms, terms_of
from features.event_log import instant
from features.importer import ingest
from features.landing import Landing
from features.quarantine import Quarantine
from features.source_watch import SourceWatch
from features.sources import Delivery, SourceState, source_health

ROOT = Path(__file__).parents[2]
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
START = datetime(2026, 1, 1, tzinfo=UTC)
TERMS = SourceTerms(frequency="1d", latency="1d", freshness="4d", completeness=0.9, refused=0.05)


def delivery(day: int, *, rows: int = 10, refused: int = 0, late: timedelta = 6 * HOUR, **more: bool) -> Delivery:
    """One day's events, all of them known at once."""
    event = np.full(rows - refused, instant(START + day * DAY), dtype=np.int64)
    return Delivery(rows, refused, event, event + late // timedelta(microseconds=1), **more)


def daily(days: int = 30, skip: tuple[int, ...] = ()) -> list[Delivery]:
    return [delivery(day) for day in range(days) if day not in skip]


def test_a_good_source_is_safe_for_automation() -> None:
    """Every day there, known in time, nothing refused, fresh: safe, and no reason is given."""
    found = source_health("till", "demand", daily(), TERMS, START + 30 * DAY)
    assert (found.state, found.reasons, found.gaps) == (SourceState.SAFE_FOR_AUTOMATION, (), ())
    assert (found.completeness, found.rows, found.age) == (1.0, 300, 18 * HOUR)
    assert found.latency_p50 == found.latency_p95 == 6 * HOUR


def test_a_stopped_source_grows_older_and_never_turns_into_nothing() -> None:
    """Day after day without a delivery its age grows by a day, and its latency stays what it was."""
    looks = [source_health("till", "demand", daily(), TERMS, START + day * DAY) for day in range(30, 90)]
    ages = [look.age for look in looks if look.age is not None]
    assert [later - sooner for sooner, later in pairwise(ages)] == [DAY] * 59
    assert {look.latency_p95 for look in looks} == {6 * HOUR}
    assert looks[0].safe
    assert looks[-1].state is SourceState.UNAVAILABLE
    assert looks[-1].reasons[0] == "nothing came for 59 days, 2d is the most expected"
    assert (looks[-1].completeness, len(looks[-1].gaps)) == (0.0, 1)


def test_nothing_ever_is_unavailable_in_words() -> None:
    """A source of which nothing is known by the moment has no age, and says so."""
    for deliveries in ([], daily()):
        found = source_health("till", "demand", deliveries, TERMS, START - DAY)
        assert (found.state, found.age, found.rows) == (SourceState.UNAVAILABLE, None, 0)
        assert "landed" in found.reasons[0]


def test_missing_days_are_gaps() -> None:
    """Days without events are listed as gaps and cost completeness: available, but not validated."""
    found = source_health("till", "demand", daily(skip=(10, 11, 12, 20)), TERMS, START + 30 * DAY)
    assert found.gaps == ((START + 10 * DAY, START + 13 * DAY), (START + 20 * DAY, START + 21 * DAY))
    assert found.completeness == pytest.approx(1 - 4 / 28)
    assert found.state is SourceState.AVAILABLE
    assert "0.857 of what was due is there, 0.9 is the least" in found.reasons[0]


def test_refused_rows_hold_a_source_back_until_somebody_decides() -> None:
    """Too many refused rows over the last deliveries, or a last one that is bad, and it is not validated."""
    now = START + 30 * DAY
    spread = [delivery(day, rows=100, refused=6) for day in range(30)]
    last = [*daily(29), delivery(29, rows=100, refused=40)]
    few = [*(delivery(day, rows=100) for day in range(29)), delivery(29, rows=20, refused=4)]
    states = [source_health("till", "demand", rows, TERMS, now).state for rows in (spread, last, few)]
    assert states == [SourceState.AVAILABLE, SourceState.AVAILABLE, SourceState.SAFE_FOR_AUTOMATION]
    nothing_else = Delivery(3, 3, np.empty(0, np.int64), np.empty(0, np.int64))
    found = source_health("till", "demand", [*few[:-1], delivery(29), nothing_else], TERMS, now)
    assert found.reasons == ("3 of the 3 rows of the last delivery are in quarantine",)
    assert found.refused_last == 1.0


def test_late_news_and_old_news_are_told_apart() -> None:
    """Events that become known too late fail validation; deliveries of old events are validated and not fresh."""
    late = [delivery(day, late=40 * HOUR) for day in range(30)]
    found = source_health("till", "demand", late, TERMS, START + 31 * DAY)
    assert found.reasons == ("events become known 40 h late, 1d is the most",)
    old = SourceTerms(frequency="1d", latency="30d", freshness="4d", completeness=0.9, refused=0.05)
    found = source_health("till", "demand", [delivery(day, late=10 * DAY) for day in range(60)], old, START + 69 * DAY)
    assert found.state is SourceState.VALIDATED
    assert found.reasons == ("its newest event is 10 days old, 4d is the most allowed",)


def test_released_rows_fill_gaps_and_hide_no_stop() -> None:
    """Rows that a person released count as events; the source's own silence and latency stay what they are."""
    now = START + 60 * DAY
    by_hand = delivery(29, rows=5, late=30 * DAY, released=True)
    own, both = (source_health("till", "demand", rows, TERMS, now) for rows in (daily(), [*daily(), by_hand]))
    assert (both.age, both.latency_p95, both.refused_recent) == (own.age, own.latency_p95, own.refused_recent)
    assert both.state is SourceState.UNAVAILABLE


def test_an_ended_source_is_asked_nothing() -> None:
    """A source of which no more is expected is shown as it is, and holds nobody back."""
    ended = TERMS.model_copy(update={"ended": True})
    found = source_health("old till", "demand", daily(), ended, START + 400 * DAY)
    assert (found.state, found.safe) == (SourceState.UNAVAILABLE, True)


@settings(max_examples=200, deadline=None)
@given(
    days=st.lists(st.integers(0, 60), max_size=40),
    late=st.integers(0, 100),
    refused=st.integers(0, 10),
    at=st.integers(-5, 120),
)
def test_health_is_what_plain_counting_gives(days: list[int], late: int, refused: int, at: int) -> None:
    """Whatever came and whenever one looks: ages, completeness and gaps agree with sets of days, and only what was
    known by then counts."""
    now = START + at * DAY + HOUR
    deliveries = [delivery(day, late=late * HOUR, refused=refused, rows=11) for day in days]
    found = source_health("till", "demand", deliveries, TERMS, now)
    known = sorted(day for day in days if START + day * DAY + late * HOUR <= now)
    if not known:
        assert found.age is None
        return
    assert found.newest_event == START + known[-1] * DAY
    assert found.age == now - (found.newest_event + late * HOUR)
    end = ((now - DAY) - START) // DAY
    due = set(range(max(end - 28, known[0]), end))
    assert found.completeness == pytest.approx(len(due & set(known)) / len(due) if due else 1.0)
    assert {
        day for start, stop in found.gaps for day in range((start - START) // DAY, (stop - START) // DAY)
    } == due - set(known)
    assert (found.state is SourceState.SAFE_FOR_AUTOMATION) == (not found.reasons)


def test_every_contract_states_its_service_levels() -> None:
    """Each event contract has readable slaProperties, in the standard's own model."""
    for kind in event_kinds():
        terms = contract_terms(kind)
        assert terms.frequency > timedelta(0) < terms.freshness
        contract = OpenDataContractStandard.from_file(str(ROOT / "contracts" / "events" / f"{kind}.odcs.yaml"))
        assert {item.property for item in contract.slaProperties or ()} >= {"frequency", "latency", "freshness"}
    with pytest.raises(UnknownName, match="demand"):
        contract_terms("demnd")


def test_a_repository_says_where_a_source_differs(tmp_path: Path) -> None:
    """`sources` of features.yaml replaces single terms of one source and kind, and is no part of a service's hash."""
    text = (ROOT / "features/repo/features.yaml").read_text()
    plain = load_declarations(ROOT / "features/repo")
    (tmp_path / "features.yaml").write_text(text + "sources:\n  lmis: {demand: {frequency: 31d, completeness: 0.5}}\n")
    own = load_declarations(tmp_path)
    terms = terms_of("lmis", "demand", own.sources)
    assert (terms.frequency, terms.completeness, terms.refused) == (31 * DAY, 0.5, contract_terms("demand").refused)
    assert terms_of("till", "demand", own.sources) == contract_terms("demand")
    assert own.service_hash("demand_v1") == plain.service_hash("demand_v1")
    (tmp_path / "features.yaml").write_text(text + "sources:\n  lmis: {demand: {frequncy: 31d}}\n")
    with pytest.raises(ConfigInvalid, match="'frequency'"):
        load_declarations(tmp_path)


def sales(day: int, *quantities: float) -> pd.DataFrame:
    at = START + day * DAY
    rows = {"event_id": [f"{day}-{n}" for n in range(len(quantities))], "quantity": quantities, "sku": "milk"}
    more = {"event_time": at, "known_at": at + DAY, "location": "n", "period": "day", "source_system": "till"}
    return pd.DataFrame(rows | more)


def test_a_lakes_sources_are_watched_as_they_land(tmp_path: Path) -> None:
    """A watch sees new deliveries, refused rows, and that discarding them makes the source validated again."""
    landing = Landing(tmp_path)
    watch = SourceWatch(landing, load_declarations(ROOT / "features/repo"))
    for day in range(30):
        landing.append("demand", sales(day, 1, 2), source="till")
    now = START + 30 * DAY
    (good,) = watch.health(now, ["demand"])
    assert (good.source, good.rows, good.safe) == ("till", 60, True)
    landing.append("demand", sales(30, *[-1.0] * 20, 1), source="till")
    (bad,) = watch.health(now + DAY, ["demand"])
    assert bad.state is SourceState.AVAILABLE
    store = Quarantine(landing)
    store.discard("demand", group=store.groups()[0].group, actor="ann", why="returns", now=now)
    assert watch.health(now + DAY, ["demand"])[0].safe
    assert next(source.kind for source in watch.health(now) if not source.source) == "external_signal"
    assert any("price_promotion has ever landed" in words for words in watch.unsafe("demand_v1", now))


@pytest.mark.slow
def test_monthly_stock_reports_are_watched_on_their_own_terms(tmp_path: Path) -> None:
    """USAID: monthly reports, known ten days after their month; fresh in October 2019, long stopped in March 2020."""
    path = Path(os.environ.get("SEATRIAL_DATA", ROOT.parent / "shared" / "data")) / "usaid_contraceptive_lmis"
    if not path.exists():
        pytest.skip(f"no {path}: set SEATRIAL_DATA to the folder with the real data")
    landing = Landing(tmp_path)
    file = path / "contraceptive_logistics_data.csv"
    ingest(load_mapping(ROOT / "examples/usaid/stock.yaml"), file, landing)
    monthly = SourceOverride(frequency="31d", latency="42d", freshness="75d")
    bare = load_declarations(ROOT / "features/repo").model_dump() | {"sources": {}}
    declared = Declarations.model_validate(bare).model_copy(update={"sources": {"usaid_lmis": {"demand": monthly}}})
    watch = SourceWatch(landing, declared)
    (fresh,) = watch.health(datetime(2019, 10, 15, tzinfo=UTC), ["demand"])
    assert (fresh.state, fresh.reasons) == (SourceState.SAFE_FOR_AUTOMATION, ())
    assert fresh.latency_p50 in (40 * DAY, 41 * DAY)
    (stopped,) = watch.health(datetime(2020, 3, 1, tzinfo=UTC), ["demand"])
    assert (stopped.state, stopped.safe) == (SourceState.UNAVAILABLE, False)
