"""`seatrial stockout`: from files or the decision log to recommendations, whole or not at all."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from contracts.decisions import Answer, DecisionRecord, Route, Rung, Step
from serving.decision_log import DecisionLog, decision_id
from tests.lifecycle.command_runs import Ended, Run, ran

ROOT = Path(__file__).resolve().parents[2]
ITEMS = """\
sku,location,on_hand,lead_time,order_minimum,order_multiple,order_maximum
milk,north,40,2,,12,
soap,north,300,4,,,
salt,south,0,3,150,10,
"""
LEVEL = {"milk|north": 12.0, "soap|north": 3.0, "salt|south": 20.0}
SPREAD = {"0.1": 0.5, "0.5": 1.0, "0.9": 1.7}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs `seatrial stockout` as the console script does, in an empty workspace, on the three items."""
    (tmp_path / "items.csv").write_text(ITEMS)
    forecast_file(tmp_path / "forecast.csv")

    def command(*arguments: object, items: str = "items.csv") -> Ended:
        monkeypatch.chdir(tmp_path)
        folders = {"HOME": tmp_path / "home", "POLICIES": ROOT / "policies", "FEATURES": ROOT / "features" / "repo"}
        given = {f"SEATRIAL_{name}": str(folder) for name, folder in folders.items()}
        return ran(monkeypatch, capsys, given, ("stockout", items, *arguments))

    return command


def forecast_file(path: Path, steps: int = 7) -> None:
    rows = [
        {"key": key, "step": step, "mean": level, **{q: level * share for q, share in SPREAD.items()}}
        for key, level in LEVEL.items()
        for step in range(steps, 0, -1)
    ]
    frame = pd.DataFrame(rows)
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path, index=False)


def decided(key: str, day: int, level: float, rung: Rung = Rung.CHAMPION) -> DecisionRecord:
    """A forecast of a key as the service records it."""
    at = datetime(2026, 3, day, 6, tzinfo=UTC)
    sku, location = key.split("|")
    quantiles = {name: level * share for name, share in SPREAD.items()}
    dates = [f"{at + timedelta(days=step):%Y-%m-%d}" for step in range(7)]
    steps = tuple(Step(target_date=date, mean=level, quantiles=quantiles) for date in dates)
    return DecisionRecord(
        decision_id=decision_id("demand", f"{key}-{day}", 0),
        request_id=f"r{day}",
        request_hash="0",
        model="demand",
        kind="forecast",
        as_of=at,
        subject={"sku": sku, "location": location},
        request={},
        views=(),
        route=Route(arm="champion", version="1", key=key, bucket=0.5, share=0, reason="", revision=1),
        answer=Answer(rung=rung, version="1", steps=() if rung is Rung.REFUSE else steps),
        manifest_sha256=None,
        features_hash="0",
        policy_hash="0",
        code_revision="0",
    )


def test_recommendations_from_files(run: Run, tmp_path: Path) -> None:
    """CSV and Parquet forecasts give the same; each item has probability, order, reason and the inputs as given."""
    forecast_file(tmp_path / "forecast.parquet")
    ended = run("--forecast", "forecast.csv", "--service-level", 0.95, "--json")
    assert ended.code == 0, ended.err
    again = run("--forecast", "forecast.parquet", "--service-level", 0.95, "--json")
    assert again.json["recommendations"] == ended.json["recommendations"]
    by_key = {row["key"]: row for row in ended.json["recommendations"]}
    assert list(by_key) == list(LEVEL)
    assert by_key["soap|north"]["order"] == 0
    assert by_key["salt|south"]["stockout_probability"] == 1
    assert (by_key["salt|south"]["order"], by_key["milk|north"]["order"] % 12) == (150, 0)
    assert by_key["milk|north"]["inputs"]["on_hand"] == 40
    assert by_key["milk|north"]["inputs"]["order_maximum"] is None
    assert "the order minimum is 150" in by_key["salt|south"]["reason"]
    assert ended.json["dependence"] == "independent steps"


def test_recommendations_from_the_decision_log(run: Run, tmp_path: Path) -> None:
    """Without a file, the newest answered forecast of each item counts, as the file of it would; refusals do not."""
    log = DecisionLog(tmp_path / "home" / "decisions")
    for key, level in LEVEL.items():
        log.append(decided(key, 2, level))
        log.append(decided(key, 1, 1000.0))
        log.append(decided(key, 3, 0.0, Rung.REFUSE))
    ended = run("--service-level", 0.95, "--json")
    assert ended.code == 0, ended.err
    wanted = run("--forecast", "forecast.csv", "--service-level", 0.95, "--json").json["recommendations"]
    assert ended.json["recommendations"] == wanted
    assert ended.json["forecast"] == "decision log"
    assert ended.json["forecast_as_of"]["newest"].startswith("2026-03-02")


@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
def test_out_is_written_whole(run: Run, tmp_path: Path, ending: str) -> None:
    """The file holds what --json prints, one row an item; nothing else is left in the folder."""
    out = tmp_path / "made" / f"orders.{ending}"
    ended = run("--forecast", "forecast.csv", "--service-level", 0.95, "--out", out, "--json")
    read = {"csv": pd.read_csv, "parquet": pd.read_parquet}.get(ending)
    found = read(out) if read else pd.DataFrame(json.loads(out.read_text())["items"])
    assert found["order"].tolist() == [row["order"] for row in ended.json["recommendations"]]
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_open_orders_lead_times_and_costs(run: Run, tmp_path: Path) -> None:
    """Open orders count from their arrival, past deliveries make the lead time, costs the service level."""
    (tmp_path / "orders.csv").write_text("key,step,units\nsalt|south,1,500\nmilk|north,6,24\nother|x,1,9\n")
    (tmp_path / "past.csv").write_text("key,lead_time\nsalt|south,1.5\nsalt|south,4\n")
    (tmp_path / "items.csv").write_text(
        "key,on_hand,lead_time,shortage_cost,holding_cost\nmilk|north,40,2,9,1\nsalt|south,0,,19,1\n"
    )
    ended = run("--forecast", "forecast.csv", "--orders", "orders.csv", "--lead-times", "past.csv", "--json")
    assert ended.code == 0, ended.err
    milk, salt = ended.json["recommendations"]
    assert (milk["inputs"]["on_order"], milk["inputs"]["on_order_later"]) == (0, 24)
    assert (milk["inputs"]["service_level"], salt["inputs"]["service_level"]) == (0.9, 0.95)
    assert (salt["stockout_probability"], salt["order"]) == (0, 0)
    assert (salt["inputs"]["lead_time_mean"], salt["inputs"]["lead_time_longest"]) == (3, 4)


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ("key,on_hand,lead_time\nmilk|north,many,2\n", "items.csv: on_hand of milk|north: wanted a number, got 'many'"),
        ("key,on_hand,lead_time\nmilk|north,,2\n", "on_hand of milk|north"),
        ("key,on_hand,lead_time\nmilk|north,1,\n", "lead_time of milk|north"),
        ("key,on_hand,lead_time\nmilk|north,1,9\n", "forecast of milk|north: wanted 10 steps"),
        ("key,onhand,lead_time\nmilk|north,1,2\n", "did you mean 'onhand'?"),
        ("key,on_hand,lead_time\nmilk|north,1,2\nmilk|north,1,2\n", "each key once"),
        ("key,on_hand,lead_time\nmilk|north,1,2\n,1,2\n", "row 2: wanted a key"),
        ("key,on_hand,lead_time\ntea|north,1,2\n", "wanted a forecast of every item, got none of tea|north"),
        ("on_hand,lead_time\n1,2\n", "wanted a column key, or sku and location"),
        ("key,on_hand,lead_time\n", "items.csv"),
        ("key,on_hand,lead_time,service_level\nmilk|north,1,2,95\n", "service_level of milk|north"),
    ],
)
def test_a_bad_item_is_named_and_nothing_is_written(run: Run, tmp_path: Path, items: str, said: str) -> None:
    """A bad items file ends with 2, names file or item and field, and leaves no output."""
    (tmp_path / "items.csv").write_text(items)
    ended = run("--forecast", "forecast.csv", "--service-level", 0.95, "--out", "orders.csv")
    assert ended.code == 2
    assert said in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "orders.csv").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("milk|north,7,", "steps of milk|north: wanted steps 1 to 7, each once"),
        ("milk|north,3,", "steps of milk|north: wanted steps 1 to 7, each once"),
    ],
)
def test_a_forecast_with_a_hole_is_refused(run: Run, tmp_path: Path, change: str, said: str) -> None:
    """A forecast that lacks a step at the end or within is refused by name; it is never taken as zero."""
    lines = (tmp_path / "forecast.csv").read_text().splitlines()
    (tmp_path / "forecast.csv").write_text("\n".join(line for line in lines if not line.startswith(change)) + "\n")
    ended = run("--forecast", "forecast.csv", "--service-level", 0.95)
    assert (ended.code, said in ended.err) == (2, True), ended.err


def test_no_decision_yet_and_a_wrong_ending_are_said(run: Run) -> None:
    """An empty decision log, an output of no known kind, and a missing service level end with 2 and are said."""
    for arguments, said in (
        (("--service-level", 0.9), "decision log: wanted at least one answered forecast"),
        (("--service-level", 0.9, "--forecast", "forecast.csv", "--out", "o.txt"), ".csv, .json or .parquet"),
        (("--forecast", "forecast.csv"), "service_level"),
    ):
        ended = run(*arguments)
        assert (ended.code, said in ended.err) == (2, True), ended.err
