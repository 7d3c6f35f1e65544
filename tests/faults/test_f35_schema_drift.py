"""FAULTS 35: a real feed broken in some forty ways; each is found and named, and no row is lost."""

from __future__ import annotations

import gzip
import io
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from contracts.errors import InputInvalid
from contracts.settings import Settings
from contracts.times import SetClock, parse_time
from features.build import build
from features.importer import ingest
from features.landing import Landing
from features.materialize import materialize
from lifecycle.workspace import Workspace
from tests.faults.scms_feed import KINDS, NOW, ROOT, landed_before, mapped, next_quarter, take, tree, written

Change = Callable[[pd.DataFrame], pd.DataFrame]
Write = Callable[[bytes], bytes]
FEW = 7


@pytest.fixture(scope="module")
def harbour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace's home where two years have landed, and features were built and brought online."""
    home = tmp_path_factory.mktemp("harbour")
    settings = Settings(home=home, features=ROOT / "examples" / "scms" / "features", actor="tests")
    ws = Workspace(settings, SetClock(parse_time("2012-01-01")))
    receipts = take(tmp_path_factory.mktemp("before"), written(landed_before()), ws.landing)
    assert sum(one.quarantined for one in receipts) == 0
    build(ws.declarations, ws.landing, ws.gold, until=ws.clock.now(), views=["supplier_rates"])
    moved = materialize(ws.declarations, ws.gold, ws.online, ws.clock.now(), views=["supplier_rates"])
    assert moved["supplier_rates"].written > 0
    ws.online.close()
    return home


@pytest.fixture(scope="module")
def untouched(harbour: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """What stands in the lake when the quarter lands as it is."""
    folder = tmp_path_factory.mktemp("untouched")
    shutil.copytree(harbour / "lake", folder / "lake")
    landing = Landing(folder / "lake")
    take(folder, written(next_quarter()), landing)
    return landing.latest("shipment")


def column(name: str, change: Callable[[pd.Series], pd.Series]) -> Change:
    return lambda feed: feed.assign(**{name: change(feed[name])})


def some(name: str, cell: str | Callable[[str], str]) -> Change:
    """Another cell in every fortieth row."""

    def change(feed: pd.DataFrame) -> pd.DataFrame:
        rows = feed.index % 40 == 3
        assert rows.sum() == FEW
        new = feed.loc[rows, name].map(cell) if callable(cell) else cell
        feed.loc[rows, name] = new
        return feed

    return change


def times(factor: float) -> Callable[[pd.Series], pd.Series]:
    return lambda cells: cells.map(lambda cell: f"{float(cell) * factor:.4f}" if cell else "")


def only(cell: str) -> Callable[[pd.Series], pd.Series]:
    return lambda cells: cells.map(lambda _: cell)


def rolled(feed: pd.DataFrame) -> pd.DataFrame:
    """Every cell one column to the right, the last one first."""
    return pd.DataFrame(feed.to_numpy()[:, [-1, *range(len(feed.columns) - 1)]], columns=feed.columns)


def zoned(cells: pd.Series) -> pd.Series:
    """Every second time in another zone; the moments are the same."""
    moved = pd.to_datetime(cells, utc=True).dt.tz_convert("Asia/Tokyo").map(lambda time: time.isoformat())
    return cells.where(cells.index % 2 == 0, moved)


STOPPED: dict[str, tuple[Change, str]] = {
    "column dropped": (lambda feed: feed.drop(columns="vendor"), r"shipment\.carrier\.schema: .* got 'vendor'"),
    "column renamed": (
        lambda feed: feed.rename(columns={"units": "unit"}),
        r"shipment\.quantity\.schema: .* got 'units'; did you mean 'unit'",
    ),
    "numbers to text": (
        column("units", lambda cells: cells + " pcs"),
        r"shipment\.quantity\.invalid_share: .* its rule logicalType, got 100% \(279 of 279\)",
    ),
    "decimal comma": (
        column("value", lambda cells: cells.str.replace(".", ",")),
        r"shipment\.value\.invalid_share: .* its rule logicalType",
    ),
    "unit x1000": (
        column("kg", times(1000)),
        r"shipment\.weight_kg\.unit_jump: .* got \d+(\.\d+)?(e\+\d+)? times in the middle",
    ),
    "unit x10": (column("value", times(10)), r"shipment\.value\.unit_jump: .* got \d+(\.\d+)? times in the middle"),
    "unit /1000": (
        column("units", times(0.001)),
        r"shipment\.quantity\.unit_jump: .* got 0\.00\d+ times in the middle",
    ),
    "naive times": (
        column("ordered", lambda cells: cells.str.removesuffix("+00:00")),
        r"shipment\.event_time\.invalid_share: .* its rule logicalType",
    ),
    "day and month swapped": (
        column("promised", lambda cells: cells.str.replace(r"-(\d\d)-(\d\d)$", r"-\2-\1", regex=True)),
        r"shipment\.promised_at\.invalid_share: .* its rule logicalType",
    ),
    "optional column all null": (column("kg", only("")), r"shipment\.weight_kg\.null_rise"),
    "required column all null": (
        column("country", only("")),
        r"shipment\.destination\.invalid_share: .* its rule required",
    ),
    "all vendors renamed": (
        column("vendor", lambda cells: "V-" + cells),
        r"shipment\.carrier\.new_share: .* got 100% \(279 of 279\), like 'V-",
    ),
    "columns shifted": (rolled, r"shipment\.event_time\.invalid_share"),
    "one id for all": (column("id", only("7")), r"shipment\.event_id\.duplicate_share"),
    "ids in scientific notation": (
        column("id", lambda cells: cells.map(lambda cell: f"{float(cell + '00000'):.1E}")),
        r"shipment\.event_id\.invalid_share: .* its rule spreadsheet_number",
    ),
    "negative quantities": (
        column("units", lambda cells: "-" + cells),
        r"shipment\.quantity\.invalid_share: .* its rule minimum",
    ),
}


def zipped(data: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("deliveries.csv", data)
    return sink.getvalue()


def lines_changed(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Another text in the lines 11 and 21."""
    lines = data.split(b"\n")
    for place in (10, 20):
        lines[place] = change(lines[place])
    return b"\n".join(lines)


BROKEN: dict[str, tuple[str, Write, str]] = {
    "half a file": ("a.csv", lambda data: data[: len(data) // 2 + 25], r"15 columns in every row, got 1 .*row \d+ has"),
    "an empty file": ("a.csv", lambda data: b"", "an empty file"),
    "half a gzip": ("a.csv.gz", lambda data: gzip.compress(data)[:5000], "a whole archive"),
    "a damaged gzip": (
        "a.csv.gz",
        lambda data: gzip.compress(data)[:3000] + bytes(50) + gzip.compress(data)[3050:],
        "a whole archive",
    ),
    "half a zip": ("a.csv.zip", lambda data: zipped(data)[:5000], "a whole archive"),
    "Latin-1 for UTF-8": ("a.csv", lambda data: data.decode().encode("latin-1", "replace"), "in utf-8"),
    "UTF-16 for UTF-8": ("a.csv", lambda data: data.decode().encode("utf-16"), "utf-8"),
    "cells shifted by an empty one": (
        "a.csv",
        lambda data: lines_changed(data, lambda line: b"," + line),
        r"15 columns in every row, got 2 of another length \(row 11 has 16: ',.*; row 21 has 16",
    ),
    "trailing commas": (
        "a.csv",
        lambda data: lines_changed(data, lambda line: line + b",,"),
        "15 columns in every row, got 2 of another length",
    ),
    "a quote that never closes": (
        "a.csv",
        lambda data: data[: data.rindex(b",") + 1] + b'"no\nx\ny',
        "quotes that are closed, got one that begins after line 279",
    ),
    "a column name twice": ("a.csv", lambda data: data.replace(b"units", b"kg", 1), "'kg' more than once"),
    "XML": ("a.csv", lambda data: b"<?xml version='1.0'?><rows/>", "XML, which is not read"),
}

REFUSED: dict[str, tuple[Change, str]] = {
    "duplicate ids": (some("id", "7"), r"event_id: wanted an id that was not used before, got '7' \[unique\]"),
    "a few numbers as text": (some("units", "a dozen"), r"quantity: wanted a number, got 'a dozen' \[logicalType\]"),
    "a few negative quantities": (some("units", "-5"), r"quantity: wanted at least 0, got -5.0 \[minimum\]"),
    "known in the future": (some("ordered", "2062-01-05T00:00:00Z"), r"known_at: wanted a time before .* \[future\]"),
    "in the far past": (some("promised", "1899-12-30"), r"promised_at: wanted a time between 1970 and 2200.*\[range\]"),
    "a sentinel for no date": (
        some("promised", "9999-12-31"),
        r"promised_at: wanted a time .*'9999-12-31' \[logicalType\]",
    ),
    "control characters": (
        some("vendor", lambda cell: cell[:3] + "\x01" + cell[3:]),
        r"carrier: wanted text without control characters, got .*\\x01.* \[characters\]",
    ),
    "NUL": (some("site", "a\x00b"), r"origin: wanted text without control characters, got 'a\\x00b' \[characters\]"),
    "a formula": (
        some("vendor", "=cmd|'/C calc'!A0"),
        r"carrier: wanted text that is no spreadsheet formula, got \"=cmd.* \[formula\]",
    ),
    "a few ids rounded": (
        some("id", lambda cell: f"1.{cell}E+11"),
        r"event_id: wanted an id that no spreadsheet rounded, got '1\.\d+E\+11' \[spreadsheet_number\]",
    ),
    "a required cell empty": (some("country", ""), r"destination: wanted a value, got nothing \[required\]"),
    "the header again": (
        lambda feed: pd.concat([feed[:90], pd.DataFrame([feed.columns], columns=feed.columns), feed[90:]]),
        r"event_time: wanted a time with a zone.*, got 'ordered' \[logicalType\]",
    ),
    "rows twice": (lambda feed: pd.concat([feed, feed[50:90]]), r"event_id: wanted .*not used before.* \[unique\]"),
}

KEPT: dict[str, tuple[Change, Write]] = {
    "mixed time zones": (column("ordered", zoned), bytes),
    "byte order mark": (lambda feed: feed, lambda data: b"\xef\xbb\xbf" + data),
    "mixed newlines": (lambda feed: feed, lambda data: lines_changed(data, lambda line: line + b"\r")),
    "one more column": (lambda feed: feed.assign(remark="=1+1"), bytes),
    "columns in another order": (lambda feed: feed[feed.columns[::-1]], bytes),
}

FLAGGED: dict[str, tuple[Change, str, str]] = {
    "a new category": (some("mode", "Hyperloop"), "mode", "new_value"),
    "a price of zero": (some("value", "0"), "value", "zero"),
    "the epoch for a date": (some("promised", "1970-01-01"), "promised_at", "far"),
}


def sums(receipts: list, kind: str) -> tuple[int, int, int]:
    mine = [one for one in receipts if one.kind == kind]
    return sum(one.rows_in for one in mine), sum(one.landed for one in mine), sum(one.quarantined for one in mine)


def check_stopped(harbour: Path, folder: Path, data: bytes, words: str, name: str = "deliveries.csv") -> None:
    lake = folder / "lake"
    shutil.copytree(harbour / "lake", lake)
    before = tree(lake)
    with pytest.raises(InputInvalid) as stopped:
        take(folder, data, Landing(lake), name)
    assert re.search(words, str(stopped.value)), str(stopped.value)
    assert tree(lake) == before
    assert (folder / name).read_bytes() == data


@pytest.mark.parametrize("case", STOPPED)
def test_a_feed_of_another_shape_stops_whole(harbour: Path, tmp_path: Path, case: str) -> None:
    """The error names kind, field and rule; nothing lands, features stay to the byte, the file stays where it is."""
    change, words = STOPPED[case]
    check_stopped(harbour, tmp_path, written(change(next_quarter())), words)


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_broken_as_a_whole_is_refused(harbour: Path, tmp_path: Path, case: str) -> None:
    """A file that is no whole CSV is refused with the reason, and nothing of it lands."""
    name, change, words = BROKEN[case]
    check_stopped(harbour, tmp_path, change(written(next_quarter())), words, name)


@pytest.mark.parametrize("case", REFUSED)
def test_bad_rows_are_set_apart_with_field_and_rule(harbour: Path, tmp_path: Path, case: str) -> None:
    """A few bad rows go to quarantine with field, rule and line; the others land, and all are accounted for."""
    change, words = REFUSED[case]
    feed = change(next_quarter())
    shutil.copytree(harbour / "lake", tmp_path / "lake")
    landing = Landing(tmp_path / "lake")
    receipts = take(tmp_path, written(feed), landing)
    for kind in KINDS:
        rows, landed, refused = sums(receipts, kind)
        assert rows == landed + refused == len(feed)
        assert len(landing.quarantined(kind)) == refused
    reasons = landing.quarantined("shipment")["reason"]
    assert 0 < len(reasons) <= 40
    assert reasons.str.contains(words).all(), reasons.tolist()
    assert (reasons.str.contains(r"; line \d+$") | reasons.str.contains(r"\[unique\]")).all()


@pytest.mark.parametrize("case", KEPT)
def test_what_is_no_fault_lands_the_same(harbour: Path, untouched: pd.DataFrame, tmp_path: Path, case: str) -> None:
    """Zones, byte order marks, newlines and further columns change nothing of what lands."""
    change, write = KEPT[case]
    shutil.copytree(harbour / "lake", tmp_path / "lake")
    landing = Landing(tmp_path / "lake")
    assert sums(take(tmp_path, write(written(change(next_quarter()))), landing), "shipment") == (279, 279, 0)
    pd.testing.assert_frame_equal(landing.latest("shipment"), untouched)


@pytest.mark.parametrize("case", FLAGGED)
def test_what_is_odd_lands_and_is_flagged(harbour: Path, tmp_path: Path, case: str) -> None:
    """What only the business can judge lands, and is flagged with field and rule."""
    change, field, rule = FLAGGED[case]
    shutil.copytree(harbour / "lake", tmp_path / "lake")
    landing = Landing(tmp_path / "lake")
    feed = next_quarter()
    expected = feed.loc[feed.index % 40 == 3, "id"].tolist()
    assert sums(take(tmp_path, written(change(feed)), landing), "shipment") == (279, 279, 0)
    flags = landing.flags("shipment")
    mine = flags[(flags["field"] == field) & (flags["rule"] == rule)]
    new = mine[mine["event_id"].isin(expected)]
    assert len(new) == (1 if rule == "new_value" else FEW)


def test_features_are_built_the_same_after_a_stop(harbour: Path, tmp_path: Path) -> None:
    """After a delivery was stopped, building and materialising again changes no feature row."""
    home = tmp_path / "home"
    shutil.copytree(harbour, home)
    settings = Settings(home=home, features=ROOT / "examples" / "scms" / "features", actor="tests")
    ws = Workspace(settings, SetClock(parse_time("2012-01-01")))
    before = tree(home / "lake")
    with pytest.raises(InputInvalid, match="unit_jump"):
        take(tmp_path, written(column("kg", times(1000))(next_quarter())), ws.landing)
    assert build(ws.declarations, ws.landing, ws.gold, until=ws.clock.now(), views=["supplier_rates"]) == {
        "supplier_rates": 0
    }
    moved = materialize(ws.declarations, ws.gold, ws.online, ws.clock.now(), views=["supplier_rates"])
    assert moved["supplier_rates"].written == 0
    assert tree(home / "lake") == before
    ws.online.close()


def test_a_true_change_is_accepted_by_name(harbour: Path, tmp_path: Path) -> None:
    """The rule that stopped a delivery can be accepted for it; another rule's name does not help."""
    shutil.copytree(harbour / "lake", tmp_path / "lake")
    file = tmp_path / "deliveries.csv"
    file.write_bytes(written(column("value", times(10))(next_quarter())))
    mapping, landing = mapped(tmp_path), Landing(tmp_path / "lake")
    with pytest.raises(InputInvalid, match=r"accept shipment\.value\.unit_jump if it is true"):
        ingest(mapping, file, landing, now=NOW, accept=("shipment.quantity.unit_jump",))
    receipts = ingest(mapping, file, landing, now=NOW, accept=("shipment.value.unit_jump",))
    assert sums(receipts, "shipment") == (279, 279, 0)
