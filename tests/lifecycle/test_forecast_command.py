"""`seatrial forecast`: from a file of series to a table that `seatrial stockout` reads, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.lifecycle.command_runs import Ended, Run, ran

BASIC = ("series.csv", "--frequency", "month", "--horizon", "2", "--key", "sku", "--key", "location")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs a command as the console script does, beside `series.csv`: three series of fourteen months."""
    months = pd.date_range("2023-01-01", periods=14, freq="MS").strftime("%Y-%m-%d")
    rows = [
        {
            "sku": sku,
            "location": "north",
            "group": group,
            "period": month,
            "quantity": level + number % 3,
            "out": number == 5,
        }
        for sku, group, level in (("milk", "food", 10), ("bread", "food", 20), ("soap", "care", 5))
        for number, month in enumerate(months)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "series.csv", index=False)

    def command(*arguments: object) -> Ended:
        monkeypatch.chdir(tmp_path)
        return ran(monkeypatch, capsys, {"SEATRIAL_HOME": str(tmp_path / "home")}, arguments)

    return command


def test_a_file_becomes_forecasts_and_then_orders(run: Run, tmp_path: Path) -> None:
    """Three short series are answered by a fallback by name; totals add up; the stock-out rule takes the table."""
    done = run(
        "forecast", *BASIC, "--static", "group", "--totals", "group", "--censored", "out", "--out", "f.csv", "--json"
    )
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert said["series"] == 3
    assert said["masked_periods"] == 3
    assert said["first_period"] == "2024-03-01"
    assert set(said["answered_by"]) == {"seasonal_naive"}
    table = pd.read_csv(tmp_path / "f.csv")
    series, total = table[~table["how"].eq("total")], table[table["key"].eq("total")]
    assert len(series) == 6
    np.testing.assert_allclose(series.groupby("step")["mean"].sum(), total.set_index("step")["mean"])
    food = table[table["key"].eq("group=food")]["mean"].sum()
    assert food == pytest.approx(series[series["key"].str.contains("milk|bread")]["mean"].sum())
    (tmp_path / "items.csv").write_text("key,on_hand,lead_time,service_level\nmilk|north,3,1,0.9\n")
    ordered = run("stockout", "items.csv", "--forecast", "f.csv", "--json")
    assert ordered.code == 0, ordered.err
    assert json.loads(ordered.out)["to_order"] == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("--quantity", "quantty"), "did you mean 'quantity'"),
        (("--ahead", "sku"), "a number or nothing"),
        (("--censored", "sku"), "true or false"),
        (("--totals", "grup"), "did you mean 'group'"),
    ],
)
def test_a_bad_file_writes_nothing(run: Run, tmp_path: Path, change: tuple[str, str], words: str) -> None:
    """A wrong name or cell ends with code 2 and words that say what to do, and leaves no file."""
    done = run("forecast", *BASIC, *change, "--out", "f.csv")
    assert done.code == 2
    assert words in done.err
    assert not (tmp_path / "f.csv").exists()


def test_a_series_with_two_rows_in_a_month_is_refused(run: Run, tmp_path: Path) -> None:
    """Duplicated dates are named with series and period, not added up silently."""
    table = pd.read_csv(tmp_path / "series.csv")
    pd.concat([table, table.tail(1)]).to_csv(tmp_path / "series.csv", index=False)
    done = run("forecast", *BASIC, "--out", "f.csv")
    assert done.code == 2
    assert "series soap|north, month 2024-02-01: wanted one row" in " ".join(done.err.split())
