"""Bringing gold online goes by the order of landing: what landed late is caught, what was brought is not read again."""

from __future__ import annotations

import random
import shutil
import struct
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.declarations import Declarations, PromotionPlan
from contracts.errors import UnknownName
from contracts.times import SetClock
from features.gold import GoldStore
from features.materialize import Materialized, materialize
from features.online import OnlineStore
from features.online_rows import Mark, OnlineFeatures
from tests.features.redis_server import redis_url
from tests.features.view_events import at

__all__ = ["redis_url"]
VIEW = PromotionPlan(kind="promotion_plan", keys=("sku",), ttl=timedelta(days=60), fields=("promo",))
DECLARED = Declarations(views={"plan": VIEW}, services={})


def plan(*rows: tuple[str, float, float, float]) -> pd.DataFrame:
    """Rows (sku, event hour, known hour, promo) for one target date."""
    frame = pd.DataFrame(rows, columns=["sku", "event_time", "known_at", "promo"])
    for name in ("event_time", "known_at"):
        frame[name] = pd.Series([at(hour) for hour in frame[name]], dtype="datetime64[us, UTC]")
    return frame.assign(target_date="2024-02-01")


def run(gold: GoldStore, online: OnlineFeatures, hour: float, **more: Any) -> Materialized:
    return materialize(DECLARED, gold, online, at(hour), **more)["plan"]


def promo(online: OnlineFeatures, sku: str = "a") -> float | None:
    found = online.newest("plan", ("promo",), (sku, "2024-02-01"))
    return None if found is None else found.values["promo"]


@pytest.fixture(params=["embedded", "redis"])
def online(request: pytest.FixtureRequest, tmp_path: Path) -> OnlineFeatures:
    if request.param == "embedded":
        return OnlineStore(tmp_path / "online")
    from features.redis_online import RedisOnline

    return RedisOnline(request.getfixturevalue("redis_url"), f"{tmp_path.name}", {"plan": ("sku", "target_date")})


def test_what_landed_late_is_brought_in_by_the_next_run(tmp_path: Path, online: OnlineFeatures):
    """A promotion known before the mark that landed after the run comes in without a full run, and once."""
    gold = GoldStore(tmp_path)
    gold.append("plan", plan(("a", 1, 1, 1.0), ("b", 5, 5, 5.0)))
    assert run(gold, online, 9) == (2, 2, 0, 0)
    gold.append("plan", plan(("a", 3, 3, 3.0), ("b", 2, 2, 2.0)))
    assert run(gold, online, 9) == (2, 1, 1, 0)
    assert (promo(online), promo(online, "b")) == (3.0, 5.0)
    assert run(gold, online, 9) == (0, 0, 0, 0)
    assert run(gold, online, 9, full=True) == (4, 0, 2, 2)


def test_what_is_known_only_later_waits_for_its_moment(tmp_path: Path, online: OnlineFeatures):
    """Rows of one part that are known one after the other come in one after the other, and an earlier moment does
    nothing."""
    gold = GoldStore(tmp_path)
    gold.append("plan", plan(("a", 3, 3, 3.0), ("a", 1, 1, 1.0), ("a", 2, 2, 2.0)))
    assert [run(gold, online, hour)[:2] for hour in (1, 0.5, 2, 3)] == [(1, 1), (0, 0), (1, 1), (1, 1)]
    assert promo(online) == 3.0


def test_nothing_from_after_now_is_brought_in(tmp_path: Path, online: OnlineFeatures):
    """The clock's present clamps the moment that was asked for."""
    gold = GoldStore(tmp_path)
    gold.append("plan", plan(("a", 1, 1, 1.0), ("a", 8, 8, 8.0)))
    assert run(gold, online, 99, clock=SetClock(at(2)))[:2] == (1, 1)
    assert promo(online) == 1.0
    assert run(gold, online, 99, clock=SetClock(at(9)))[:2] == (1, 1)


def test_a_tail_that_was_cut_back_and_built_again_is_taken_again(tmp_path: Path, online: OnlineFeatures):
    """Corrected rows at the same moments replace what was brought in; the rows that were kept are not read again."""
    gold = GoldStore(tmp_path)
    for hour in (1, 2, 3):
        gold.append("plan", plan(("a", hour, hour, float(hour)), ("b", hour, hour, float(hour))))
    run(gold, online, 9)
    gold.cut("plan", at(2))
    gold.append("plan", plan(("a", 3, 3, 33.0)))
    assert run(gold, online, 9) == (1, 1, 0, 0)
    assert promo(online) == 33.0


def test_gold_that_was_begun_anew_is_read_from_the_beginning(tmp_path: Path, online: OnlineFeatures):
    """A view that was cut to nothing, or whose folder was deleted, counts its parts anew: none of them is skipped."""
    gold = GoldStore(tmp_path)
    gold.append("plan", plan(("a", 1, 1, 1.0)))
    run(gold, online, 9)
    gold.cut("plan", None)
    gold.append("plan", plan(("a", 1, 2, 2.0)))
    assert run(gold, online, 9)[:2] == (1, 1)
    shutil.rmtree(gold.folder("plan"))
    gold = GoldStore(tmp_path)
    gold.append("plan", plan(("a", 1, 3, 3.0)))
    assert run(gold, online, 9)[:2] == (1, 1)
    assert promo(online) == 3.0


def test_merging_parts_brings_nothing_twice(tmp_path: Path, online: OnlineFeatures):
    """Run after each append, every row is looked at once, however parts are merged meanwhile."""
    gold = GoldStore(tmp_path, merge_at=4)
    looked = 0
    for hour in range(1, 30):
        gold.append("plan", plan(("a", hour, hour, float(hour))))
        looked += run(gold, online, hour).considered
    assert (looked, promo(online)) == (29, 29.0)
    assert len(list(gold.folder("plan").glob("*.parquet"))) < 8


def test_a_mark_of_the_first_release_is_understood(tmp_path: Path):
    """A store that remembers only a moment: an earlier moment does nothing, and late rows it missed come in once."""
    import lmdb

    store, gold = OnlineStore(tmp_path / "online"), GoldStore(tmp_path)
    gold.append("plan", plan(("a", 1, 1, 1.0), ("a", 2, 2, 2.0)))
    gold.append("plan", plan(("b", 1, 1, 1.0)))
    store.write("plan", ("sku", "target_date"), plan(("a", 2, 2, 2.0)))
    store.close()
    micros = int(at(5).timestamp()) * 1_000_000
    with lmdb.open(str(tmp_path / "online")) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"\xfdplan", struct.pack("<q", micros))
    store = OnlineStore(tmp_path / "online")
    assert store.mark("plan") == Mark(at(5))
    assert run(gold, store, 4) == (0, 0, 0, 0)
    assert run(gold, store, 5) == (3, 1, 1, 1)
    assert run(gold, store, 5) == (0, 0, 0, 0)


def test_a_view_that_is_not_declared_is_refused(tmp_path: Path):
    """The nearest name is given."""
    with pytest.raises(UnknownName, match="plan"):
        materialize(DECLARED, GoldStore(tmp_path), OnlineStore(tmp_path / "o"), at(1), views=["plam"])


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 9), st.integers(0, 3)),
        st.tuples(st.just("run"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("cut"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("reopen"), st.just(0), st.just(0)),
    ),
    max_size=14,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS, st.randoms(use_true_random=False))
def test_after_any_history_the_newest_known_row_is_online(tmp_path_factory: Any, steps: Any, chance: random.Random):
    """Appends in any order of known_at, cuts, merges and runs: a last run leaves what a full run into an empty store
    gives, for keys whose newest row was never cut away."""
    folder = tmp_path_factory.mktemp("late")
    gold, online = GoldStore(folder, merge_at=3), OnlineStore(folder / "online", durable=False)
    for number, (step, hour, late) in enumerate(steps):
        if step == "append":
            sku = chance.choice("ab")
            gold.append("plan", plan((sku, hour - late, hour, float(number)), (f"n{number}", hour, hour, 1.0)))
        elif step == "run":
            run(gold, online, hour)
        elif step == "cut":
            gold.cut("plan", at(hour))
        else:
            gold = GoldStore(folder, merge_at=3)
    run(gold, online, 20)
    fresh = OnlineStore(folder / "fresh", durable=False)
    run(gold, fresh, 20)
    for sku in ("a", "b", *(f"n{number}" for number in range(len(steps)))):
        mine, best = (store.newest("plan", ("promo",), (sku, "2024-02-01")) for store in (online, fresh))
        assert best is None or (mine is not None and mine[:2] >= best[:2])
        assert best is None or mine[:2] > best[:2] or mine == best  # type: ignore[index]
    online.close()
    fresh.close()
