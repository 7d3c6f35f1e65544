"""SCD2 master tables as features: from ingest to training set and online, with every decision seeing what was known."""

from __future__ import annotations

import math
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.declarations import AttributeHistory, Declarations
from contracts.errors import ConfigInvalid
from contracts.mapping import load_mapping
from contracts.settings import Settings
from contracts.yaml_file import load_strict
from features.build import build
from features.event_log import microseconds
from features.feast_store import FeatureRepo
from features.gold import GoldStore
from features.importer import ingest
from features.landing import Landing
from features.quarantine import Quarantine
from features.scd2 import gaps, interval_faults
from features.source_watch import SourceWatch
from tests.features.view_events import events

DAY = timedelta(days=1)
START = datetime(2026, 1, 1, tzinfo=UTC)
VIEW = AttributeHistory(kind="attribute_history", entity="supplier", keys=("supplier",), names=("lead", "rating"))
DECLARED = Declarations.model_validate(
    {"views": {"terms": VIEW.model_dump()}, "services": {"risk_v1": {"views": ["terms"]}}}
)

MASTER = """\
supplier_id,lead_days,class,valid_from,valid_to
S1,5,A,2026-01-01,2026-03-01
S1,7,A,2026-03-01,
S2,9,B,2026-01-01,2026-02-01
S2,11,C,2026-04-01,2026-05-01
"""
MAPPING = """\
source_system: supplier_master
batch: 365d
inputs: {suppliers: {}}
prepare: |
  SELECT supplier_id, name, TRY_CAST(value AS DOUBLE) AS value, valid_from, valid_to FROM (
    SELECT supplier_id, lead_days AS lead,
           CASE class WHEN 'A' THEN '1' WHEN 'B' THEN '2' WHEN 'C' THEN '3' END AS rating, valid_from, valid_to
    FROM suppliers
  ) UNPIVOT (value FOR name IN (lead, rating))
events:
  - kind: attribute
    columns:
      event_id: {join: [supplier_id, name, valid_from, valid_to]}
      event_time: {from: valid_from}
      known_at: {from: valid_from}
      entity: {value: supplier}
      entity_id: {from: supplier_id}
      name: {from: name}
      value: {from: value}
      valid_from: {from: valid_from}
      valid_to: {from: valid_to}
"""


def on(month: int, day: int = 1) -> datetime:
    return datetime(2026, month, day, tzinfo=UTC)


def interval(start: int, end: int | None, value: float | None = 1.0, **more: Any) -> dict[str, Any]:
    """An interval of supplier S1's lead in days from the start, known when it begins unless `known` says a day."""
    known = START + more.pop("known", start) * DAY
    row = {"entity": "supplier", "entity_id": "S1", "name": "lead", "value": value}
    times = {"event_time": known, "known_at": known, "valid_from": START + start * DAY}
    return row | times | {"valid_to": None if end is None else START + end * DAY} | more


def landed(root: Path, *rows: dict[str, Any]) -> Landing:
    landing = Landing(root)
    landing.append("attribute", events("attribute", rows), source="master")
    return landing


def seen(landing: Landing, root: Path, at: datetime, supplier: str = "S1") -> tuple[float, ...] | None:
    """What a point-in-time join gives a decision at a moment: the last row with event_time and known_at by then."""
    gold = GoldStore(root / "gold")
    build(DECLARED, landing, gold, until=START + 400 * DAY)
    rows = gold.read("terms")
    rows = rows[(rows["supplier"] == supplier) & (rows["event_time"] <= at) & (rows["known_at"] <= at)]
    rows = rows.sort_values(["event_time", "known_at"], kind="stable")
    return None if rows.empty else tuple(rows[list(VIEW.names)].iloc[-1])


def test_a_supplier_master_from_ingest_to_training_set_and_online(tmp_path: Path) -> None:
    """A CSV with valid_from and valid_to: each decision gets the values that held and were known; an end is missing."""
    (tmp_path / "master.csv").write_text(MASTER)
    (tmp_path / "mapping.yaml").write_text(MAPPING)
    landing = Landing(tmp_path / "home" / "lake")
    (receipt,) = ingest(load_mapping(tmp_path / "mapping.yaml"), tmp_path / "master.csv", landing)
    assert (receipt.landed, receipt.quarantined) == (8, 0)
    repo = FeatureRepo(Settings(home=tmp_path / "home"), DECLARED)
    repo.apply()
    build(DECLARED, landing, GoldStore(tmp_path / "home" / "lake" / "gold"), until=on(6))
    asked = pd.DataFrame(
        {
            "row_id": list("abcdefg"),
            "as_of": pd.DatetimeIndex([on(1), on(2, 28), on(3), on(1, 31), on(2), on(4), on(5)]).as_unit("us"),
            "supplier": ["S1", "S1", "S1", "S2", "S2", "S2", "S2"],
        }
    )
    found = repo.training_set("risk_v1", asked)
    assert found["row_id"].tolist() == list("abcdefg")
    np.testing.assert_array_equal(found["terms__lead"], [5, 5, 7, 9, np.nan, 11, np.nan])
    np.testing.assert_array_equal(found["terms__rating"], [1, 1, 1, 2, np.nan, 3, np.nan])
    repo.materialize(on(6))
    online = repo.online.read("terms", VIEW.names, ("S1",), on(6), VIEW.ttl)
    assert (online.status, online.values) == ("present", {"lead": 7.0, "rating": 1.0})
    assert repo.online.read("terms", VIEW.names, ("S2",), on(6), VIEW.ttl).values == {"lead": None, "rating": None}
    assert gaps(landing.read("attribute"))[["entity_id", "start", "end"]].drop_duplicates().to_numpy().tolist() == [
        ["S2", pd.Timestamp(on(2)), pd.Timestamp(on(4))]
    ]
    assert landing.flags("attribute")["rule"].tolist() == ["gap"] * 2
    (health,) = SourceWatch(landing, DECLARED).health(on(5), ["attribute"])
    assert health.safe


def test_an_end_is_seen_from_the_day_it_is_known(tmp_path: Path) -> None:
    """An open interval that a correction closes later holds for decisions before that, and not for later ones."""
    root = tmp_path / "lake"
    landing = landed(root, interval(0, None, 5.0), interval(0, 10, 5.0, known=20, event_id="closed"))
    before, after = (seen(landing, tmp_path, START + day * DAY) for day in (19, 20))
    assert before == pytest.approx((5.0, math.nan), nan_ok=True)
    assert after == pytest.approx((math.nan, math.nan), nan_ok=True)


def test_a_value_recorded_late_reaches_only_later_decisions(tmp_path: Path) -> None:
    """An interval recorded after it began is unseen until it was recorded; one recorded ahead begins in its time."""
    late = landed(tmp_path / "a", interval(0, None, 5.0, known=7))
    assert seen(late, tmp_path / "a", START + 6 * DAY) is None
    assert seen(late, tmp_path / "a", START + 7 * DAY) == pytest.approx((5.0, math.nan), nan_ok=True)
    ahead = landed(tmp_path / "b", interval(0, 10, 5.0), interval(10, None, 6.0, known=3))
    assert [seen(ahead, tmp_path / "b", START + day * DAY)[0] for day in (9, 10)] == [5.0, 6.0]  # type: ignore[index]


@pytest.mark.parametrize(
    ("rows", "refused"),
    [
        ([interval(5, 3)], ["valid_to: wanted a time after valid_from"]),
        ([interval(5, 5)], ["valid_to: wanted a time after valid_from"]),
        ([interval(0, 9), interval(4, 12)], ["valid_from: wanted no overlap with an interval of supplier.lead"] * 2),
        ([interval(0, None), interval(4, None)], ["valid_to: wanted one open interval of supplier.lead"] * 2),
        ([interval(0, None), interval(4, 6)], ["valid_from: wanted no overlap with an interval of supplier.lead"] * 2),
        ([interval(0, 4), interval(4, None), interval(9, 12, name="rating")], []),
        ([interval(0, 4), interval(2, None, entity_id="S2")], []),
        ([interval(0, None), interval(0, 4, known=4, event_id="end"), interval(4, None)], []),
    ],
)
def test_contradictions_are_refused_by_name(tmp_path: Path, rows: list[dict[str, Any]], refused: list[str]) -> None:
    """Inverted and empty intervals, overlaps and second open ones go to quarantine with what they contradict."""
    landing = landed(tmp_path, *rows)
    reasons = landing.quarantined("attribute")["reason"]
    assert [reason.partition(", got ")[0] for reason in reasons] == refused
    assert len(landing.read("attribute")) == len(rows) - len(refused)


def test_a_contradiction_with_what_landed_waits_for_its_end(tmp_path: Path) -> None:
    """A new interval beside an open landed one is refused alone; once the old one's end has landed, it is released."""
    landing = landed(tmp_path, interval(0, None))
    following = events("attribute", [interval(5, None, 2.0)], first_id=7)
    assert landing.append("attribute", following, source="master").quarantined == 1
    assert "[open]" in landing.quarantined("attribute")["reason"].iat[0]
    landing.append("attribute", events("attribute", [interval(0, 5, known=6)], first_id=9), source="master")
    store = Quarantine(landing)
    done = store.release("attribute", group=store.groups()[0].group, actor="ann", why="closed", now=START + 8 * DAY)
    assert (done.rows, done.refused) == (1, {})
    assert store.account("attribute").balanced


def test_an_attribute_view_has_one_key() -> None:
    """A view over two keys, or without names, is refused by the declaration."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.yaml"
        path.write_text(
            "views: {v: {kind: attribute_history, entity: product, keys: [sku, location], names: [size]}}\n"
            "services: {s: {views: [v]}}\n"
        )
        with pytest.raises(ConfigInvalid, match="at most 1"):
            load_strict(path, Declarations)


DAYS = st.integers(0, 12)
ROWS = st.lists(
    st.builds(
        lambda start, length, value, known, supplier, name: interval(
            start, None if length is None else start + length, value, known=known, entity_id=supplier, name=name
        ),
        DAYS,
        st.one_of(st.none(), st.integers(-1, 6)),
        st.sampled_from([None, 1.0, 2.0, 3.0]),
        DAYS,
        st.sampled_from(["S1", "S2"]),
        st.sampled_from(["lead", "rating", "other"]),
    ),
    max_size=14,
)


def brute(rows: list[dict[str, Any]], supplier: str, name: str, at: datetime) -> float:
    """The value of an attribute at a moment as known by then, from the intervals themselves."""
    known = [row for row in rows if row["known_at"] <= at and (row["entity_id"], row["name"]) == (supplier, name)]
    newest: dict[datetime, dict[str, Any]] = {}
    for row in known:
        old = newest.get(row["valid_from"])
        if old is None or row["known_at"] >= old["known_at"]:
            newest[row["valid_from"]] = row
    holding = [row for row in newest.values() if row["valid_from"] <= at and (row["valid_to"] or at + DAY) > at]
    value = max(holding, key=lambda row: row["valid_from"])["value"] if holding else None
    return math.nan if value is None else value


@settings(max_examples=50, deadline=None)
@given(rows=ROWS, cuts=st.lists(st.integers(0, 25), max_size=4), split=st.integers(0, 14))
def test_every_decision_sees_what_held_as_known_by_then(
    rows: list[dict[str, Any]], cuts: list[int], split: int
) -> None:
    """At every half day the joined value is that of brute force over the landed intervals, whatever was corrected,
    recorded late or ahead, however the build is cut up, and also when part of it lands after the view was built."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        landing, gold = Landing(root), GoldStore(root / "gold", durable=False)
        for first, part in ((0, rows[:split]), (split, rows[split:])):
            if part:
                landing.append("attribute", events("attribute", part, first_id=first), source="master")
            for day in sorted(cuts):
                build(DECLARED, landing, gold, until=START + day * DAY)
        build(DECLARED, landing, gold, until=START + 25 * DAY)
        kept = landing.read("attribute").astype(object).where(lambda frame: frame.notna(), None).to_dict("records")
        gold_rows = gold.read("terms")
        for half_day in range(50):
            at = START + half_day * DAY / 2
            for supplier in ("S1", "S2"):
                wanted = [brute(kept, supplier, name, at) for name in VIEW.names]
                known = gold_rows[gold_rows["known_at"] <= at]
                found = known[known["supplier"] == supplier] if len(known) else known
                newest = found.sort_values(["event_time", "known_at"], kind="stable").tail(1)
                got = newest[list(VIEW.names)].iloc[0].tolist() if len(newest) else [math.nan, math.nan]
                np.testing.assert_array_equal(got, wanted, err_msg=f"{supplier} at {at}")


@settings(max_examples=150, deadline=None)
@given(rows=ROWS)
def test_refused_intervals_are_those_that_contradict(rows: list[dict[str, Any]]) -> None:
    """A new interval is refused exactly when it is empty or meets another newest one of its attribute."""
    frame = events("attribute", rows)
    reasons = interval_faults(frame, frame.iloc[:0])
    start = microseconds(frame["valid_from"]) if len(frame) else []
    for row, (one, reason) in enumerate(zip(rows, reasons, strict=True)):
        if one["valid_to"] is not None and one["valid_to"] <= one["valid_from"]:
            assert "[inverted]" in reason
            continue
        newest: dict[tuple[Any, ...], int] = {}
        for place in sorted(range(len(rows)), key=lambda place: rows[place]["known_at"]):
            other = rows[place]
            if other["valid_to"] is None or other["valid_to"] > other["valid_from"]:
                newest[other["entity_id"], other["name"], start[place]] = place
        mine = (one["entity_id"], one["name"])
        rivals = [rows[p] for key, p in newest.items() if key[:2] == mine and p != row]
        far = START + 999 * DAY
        meets = any(
            other["valid_from"] < (one["valid_to"] or far) and one["valid_from"] < (other["valid_to"] or far)
            for other in rivals
        )
        current = newest[(*mine, start[row])] == row
        assert bool(reason) == (meets and current), (one, rivals, reason)
