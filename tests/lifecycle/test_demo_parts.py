"""Parts of the demo: whose workspace may be cleared, which requests are made, live scores, and the page."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts.errors import DependencyDown, NotEnoughData, UsageError
from contracts.rehearsal import Voyage
from contracts.settings import Settings
from features.population import demand_labels
from lifecycle.demo import finished, make_room
from lifecycle.demo_data import data_folder, place_in_unit, series_asks, shipment_asks
from lifecycle.demo_report import write_report
from lifecycle.demo_results import Demo, Voyaged
from lifecycle.demo_state import MARKER
from lifecycle.http_check import HttpCheck
from lifecycle.live_scores import LiveRows, forecast_rows, forecast_scores, risk_scores
from lifecycle.workspace import Workspace
from serving.requests import ScoreRequest

START = datetime(2026, 3, 1, tzinfo=UTC)


def settle(settings: Settings, identity: str, *, complete: bool) -> None:
    """What a demo leaves behind, done or not."""
    make_room(settings, identity, fresh=False)
    (settings.home / "something.txt").write_text("left behind")
    if complete:
        settings.reports.mkdir()
        (settings.reports / "demo.json").write_text(json.dumps({"decisions": 7}))
        (settings.home / MARKER).write_text(json.dumps({"identity": identity, "complete": True}))


def test_a_workspace_that_no_demo_made_is_refused(tmp_path: Path) -> None:
    """Somebody's workspace is never cleared, not even with --fresh."""
    settings = Settings(home=tmp_path / "home")
    settings.home.mkdir()
    (settings.home / "ledger.db").write_text("precious")
    for fresh in (False, True):
        with pytest.raises(UsageError, match="no demo made"):
            make_room(settings, "a", fresh=fresh)
    assert (settings.home / "ledger.db").read_text() == "precious"


def test_an_unfinished_demo_is_started_clean(tmp_path: Path) -> None:
    """What a killed demo left is cleared without being asked, and is not taken for a finished one."""
    settings = Settings(home=tmp_path / "home")
    settle(settings, "a", complete=False)
    assert finished(settings, "a") is None
    make_room(settings, "a", fresh=False)
    assert [path.name for path in settings.home.iterdir()] == [MARKER]
    assert finished(settings, "a") is None


def test_a_finished_demo_is_kept_until_fresh(tmp_path: Path) -> None:
    """The same inputs give the finished figures; other inputs are refused, and start clean with fresh."""
    settings = Settings(home=tmp_path / "home")
    settle(settings, "a", complete=True)
    assert finished(settings, "a") == {"decisions": 7}
    assert finished(settings, "b") is None
    with pytest.raises(UsageError, match="--fresh"):
        make_room(settings, "b", fresh=False)
    make_room(settings, "b", fresh=True)
    assert not (settings.home / "something.txt").exists()
    assert finished(settings, "a") is None


def test_an_empty_folder_may_be_used(tmp_path: Path) -> None:
    """An empty folder or none at all is room enough."""
    for name in ("empty", "none"):
        settings = Settings(home=tmp_path / name)
        if name == "empty":
            settings.home.mkdir()
        make_room(settings, "a", fresh=False)
        assert json.loads((settings.home / MARKER).read_text())["complete"] is False


def test_data_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A package that is not installed and a folder that does not exist are dependencies that are down."""
    span = {"model": "demand", "mapping": "m.yaml", "learn_until": START, "live_until": START + timedelta(days=1)}
    with pytest.raises(DependencyDown, match="no_such_package"):
        data_folder(Voyage(package="no_such_package", **span))
    with pytest.raises(DependencyDown, match="nowhere"):
        data_folder(Voyage(path=tmp_path / "nowhere", **span))
    assert data_folder(Voyage(path=tmp_path, **span)) == tmp_path


def shipments(days: int = 20, a_day: int = 100) -> pd.DataFrame:
    count = days * a_day
    at = pd.Timestamp(START) + pd.to_timedelta(np.arange(count) * 1440 // a_day, unit="min")
    frame = pd.DataFrame({"shipment_id": [f"S{n}" for n in range(count)], "carrier": "A", "origin": "B"})
    frame["supplier"], frame["quantity"], frame["value"] = None, 2.5, np.nan
    return frame.assign(destination="C", event_time=at, promised_at=at + pd.Timedelta(days=2), scheduled_at=pd.NaT)


def test_the_sample_of_shipments_is_fixed() -> None:
    """The same shipments are asked about whatever their order in the file, about per_day of them a day."""
    rows = shipments()
    end = START + timedelta(days=20)
    first = shipment_asks(rows, 25)(START, end)
    again = shipment_asks(rows.sample(frac=1, random_state=3), 25)(START, end)
    assert first == again
    assert 20 * 25 * 0.85 < len(first) < 20 * 25 * 1.15
    assert len({ask.request["request_id"] for ask in first}) == len(first)


def test_spans_of_asks_meet_without_overlap() -> None:
    """Asks of [a, b) and [b, c) together are those of [a, c), in order, each at its shipment's decision time."""
    rows = shipments()
    asks, middle, end = shipment_asks(rows, 25), START + timedelta(days=7, hours=5), START + timedelta(days=20)
    whole = asks(START, end)
    assert asks(START, middle) + asks(middle, end) == whole
    assert [ask.at for ask in whole] == sorted(ask.at for ask in whole)
    at = dict(zip(rows["shipment_id"], rows["event_time"], strict=True))
    assert all(ask.at == at[ask.request["items"][0]["shipment_id"]] for ask in whole)


def test_asks_about_shipments_are_valid_requests() -> None:
    """Missing fields are left out, the others come as the request contract wants them; more than there is asks all."""
    rows = shipments(2, 5)
    whole = shipment_asks(rows, 1000)(START, START + timedelta(days=2))
    assert len(whole) == len(rows)
    request = ScoreRequest.model_validate(whole[0].request)
    assert (request.items[0].quantity, request.items[0].value, request.items[0].supplier) == (2.5, None, None)
    assert set(whole[0].request["items"][0]) == {
        "shipment_id", "carrier", "origin", "destination", "promised_at", "quantity",
    }  # fmt: skip


def test_each_series_is_asked_once_in_its_turn() -> None:
    """In any seven days each of 60 series is forecast exactly once, not all on one day."""
    names = [(f"sku{n}", f"shop{n % 3}") for n in range(60)]
    demand = pd.DataFrame(names * 4, columns=["sku", "location"])
    asks = series_asks(demand, 7)
    for offset in (0, 3):
        days = [START + timedelta(days=offset + day) for day in range(7)]
        found = [ask for day in days for ask in asks(day, day + timedelta(days=1))]
        items = [(item["sku"], item["location"]) for ask in found for item in ask.request["items"]]
        assert sorted(items) == sorted(names)
        assert len(found) >= 6
        assert max(len(ask.request["items"]) for ask in found) < 25


def test_nothing_to_ask_about_is_an_error() -> None:
    """Without shipments or series there is nothing to rehearse, and that is said."""
    with pytest.raises(NotEnoughData, match="shipments"):
        shipment_asks(shipments().iloc[:0], 5)
    with pytest.raises(NotEnoughData, match="series"):
        series_asks(pd.DataFrame(columns=["sku", "location"]), 7)


def test_places_are_spread_and_the_same_everywhere() -> None:
    """A text's place never changes (it decides what every demo asks), and places fill [0, 1) evenly."""
    places = [place_in_unit(f"S{n}") for n in range(2000)]
    assert all(0 <= place < 1 for place in places)
    assert np.histogram(places, 10, (0, 1))[0].min() > 150
    assert place_in_unit("S0") == pytest.approx(int("eaa3a8a41f29a761", 16) / 2**64, abs=0)


def risk(actual: list[float], ours: list[float], rule: list[float]) -> LiveRows:
    none = np.empty((len(actual), 0))
    return LiveRows(pd.DataFrame({"actual": actual, "champion": ours, "incumbent": rule, "scale": 1.0}), none, none)


def test_risk_scores_by_hand() -> None:
    """Brier, AUC and ECE of four answers worked out on paper; a row on which the rule was silent does not count."""
    scores = risk_scores(risk([1, 0, 1, 0, 1], [0.8, 0.4, 0.6, 0.2, 0.1], [0.5, 0.5, 0.5, 0.5, math.nan]))
    assert scores["rows"] == 4
    assert scores["champion_brier"] == pytest.approx((0.04 + 0.16 + 0.16 + 0.04) / 4)
    assert scores["incumbent_brier"] == pytest.approx(0.25)
    assert (scores["champion_auc"], scores["incumbent_auc"]) == (1.0, 0.5)
    assert scores["champion_ece"] == pytest.approx((0.2 + 0.4 + 0.4 + 0.2) / 4)
    assert scores["incumbent_ece"] == pytest.approx(0.0)


def test_forecast_scores_by_hand() -> None:
    """RMSSE, bias, coverage and quantile loss of two days worked out on paper."""
    frame = pd.DataFrame({"actual": [10.0, 20.0], "champion": [12.0, 20.0], "incumbent": [14.0, 16.0], "scale": [2, 4]})
    served, rule = np.array([[8.0, 12.0, 16.0], [21.0, 22.0, 23.0]]), np.array([[14.0] * 3, [16.0] * 3])
    scores = forecast_scores(LiveRows(frame, served, rule), (0.1, 0.5, 0.9))
    assert scores["champion_rmsse"] == pytest.approx(math.sqrt((1.0 + 0.0) / 2))
    assert scores["incumbent_rmsse"] == pytest.approx(math.sqrt((4.0 + 1.0) / 2))
    assert scores["champion_bias"] == pytest.approx(2 / 30)
    assert scores["incumbent_bias"] == pytest.approx(0.0)
    assert scores["champion_coverage"] == 0.5
    # pinball: 0.1: .1*2 and .9*1; 0.5: .5*2 and .5*2; 0.9: .1*6 and .1*3
    assert scores["champion_wql"] == pytest.approx(2 * (1.1 + 2.0 + 0.9) / 30 / 3)


@pytest.fixture
def voyaged(sailed: Any, workspace: Workspace) -> Voyaged:
    """The small voyage as the demo would sum it up."""
    with workspace.closing():
        labels = demand_labels(workspace.landing, known_by=workspace.clock.now())
    rows = forecast_rows(sailed.story.records, labels, sailed.policy, workspace.declarations)
    scores = forecast_scores(rows, sailed.policy.training.quantiles)
    return Voyaged(sailed.policy, sailed.story, rows, scores, HttpCheck("demand", 0, ()), len(rows.frame))


def test_live_rows_are_what_was_served_against_what_came(sailed: Any, voyaged: Voyaged) -> None:
    """A row is one answered day whose demand is known; the rule's answer is last week's same weekday."""
    frame, sold = voyaged.rows.frame, sailed.staged.events["demand"]
    known = {
        (f"{s}|{p}", f"{t:%Y-%m-%d}"): q
        for s, p, t, q in sold[["sku", "location", "event_time", "quantity"]].to_numpy()
    }
    assert len(frame) == 8 * sum(min(7, 24 - day) for day in range(24))
    for row in frame.sample(40, random_state=1).to_dict("records"):
        assert row["actual"] == known[row["key"], row["target_date"]]
        week_ago = pd.Timestamp(row["target_date"]) - pd.Timedelta(days=7)
        assert row["incumbent"] == known[row["key"], f"{week_ago:%Y-%m-%d}"]


def test_the_gate_s_promise_holds_on_every_weekday(voyaged: Voyaged) -> None:
    """What passed the gate beats the rule live as well, whatever the weekday of the decision."""
    frame = voyaged.rows.frame
    for who in ("champion", "incumbent"):
        frame = frame.assign(**{who: ((frame[who] - frame["actual"]) / frame["scale"]) ** 2})
    by_weekday = frame.groupby(frame["as_of"].map(datetime.weekday))[["champion", "incumbent"]].mean()
    assert len(by_weekday) == 7
    assert (by_weekday["champion"] < by_weekday["incumbent"]).all()
    assert voyaged.scores["champion_rmsse"] < 0.9 * voyaged.scores["incumbent_rmsse"]


def test_the_page_escapes_what_data_and_owners_wrote(sailed: Any, workspace: Workspace, voyaged: Voyaged) -> None:
    """A product named like a script and an owner who writes HTML stay text; the page loads nothing from outside."""
    demo = Demo("<script>alert('title')</script>", [voyaged])
    with workspace.closing():
        page = write_report(workspace, demo).read_text()
    assert "<script" not in page.lower()
    assert "&lt;script&gt;alert(&#39;sku&#39;)&lt;/script&gt;" in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "&lt;b&gt;team&lt;/b&gt;" in page
    sources = re.findall(r"<(?:img|link|iframe|script)\b[^>]*?(?:src|href)=\"([^\"]*)", page)
    assert len(sources) == 3
    assert all(source.startswith("data:image/png;base64,") for source in sources)


def test_the_summary_counts_the_story(sailed: Any, voyaged: Voyaged) -> None:
    """The figures are the story's own, mismatches are counted, and all of it is plain JSON."""
    demo = Demo("small", [voyaged, replace(voyaged, http=HttpCheck("demand", 5, ("abc",)))], 10, ["abc"], 1.26)
    summary = demo.summary()
    assert json.loads(json.dumps(summary)) == summary
    assert (summary["decisions"], summary["trainings"], summary["retrains"]) == (2 * 192, 4, 2)
    assert (summary["promotions"], summary["holds"], summary["rejections"]) == (2, 2, 0)
    assert (summary["replay_mismatches"], summary["http_compared"], summary["http_different"]) == (1, 5, 1)
    assert summary["by_model"]["demand"]["refusals"] == 0
