"""FAULTS 38: a batch file lands whole or not at all, once, by its checksum, with a report by line."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from contracts.errors import InputInvalid
from features.export_cells import safe_cell
from features.landing import Landing
from features.quarantine import Quarantine
from features.quarantine_csv import write_rows
from tests.faults.scms_feed import KINDS, NOW, ROOT, next_quarter, take, tree, written

KILLED_WHILE_LANDING = """
import sys
from pathlib import Path
import features.landing as landing
from contracts.times import parse_time
from features.importer import ingest
from tests.faults.scms_feed import mapped

writes, write = [], landing.write_part
def write_and_die(path, table):
    writes.append(path)
    if len(writes) > int(sys.argv[2]):
        import os
        os._exit(9)
    write(path, table)
landing.write_part = write_and_die
folder = Path(sys.argv[1])
ingest(mapped(folder), folder / "deliveries.csv", landing.Landing(folder / "lake"), now=parse_time(sys.argv[3]))
"""


def lake(folder: Path) -> Landing:
    return Landing(folder / "lake")


def test_the_same_file_again_changes_nothing(tmp_path: Path) -> None:
    """Ingested twice, under another name or packed, a file lands once: every later batch is known by its checksum."""
    data = written(next_quarter())
    first = take(tmp_path, data, lake(tmp_path))
    assert sum(one.landed for one in first) == 2 * 279
    before = tree(tmp_path / "lake")
    for name, again in (("deliveries.csv", data), ("copy.csv", data), ("packed.csv.gz", gzip.compress(data))):
        assert all(one.already for one in take(tmp_path, again, lake(tmp_path), name))
    assert tree(tmp_path / "lake") == before


def test_a_checksum_beside_the_file_must_hold(tmp_path: Path) -> None:
    """A file that lost its last digits is a whole CSV to every reader; the checksum beside it is what tells."""
    data = written(next_quarter())
    shorter = data[: data.rindex(b",") + 2]
    beside = tmp_path / "deliveries.csv.sha256"
    beside.write_text(f"{hashlib.sha256(data).hexdigest()}  deliveries.csv\n")
    with pytest.raises(
        InputInvalid, match=r"wanted SHA-256 [0-9a-f]{64}, as deliveries.csv.sha256 says, got [0-9a-f]{64}"
    ):
        take(tmp_path, shorter, lake(tmp_path))
    assert not (tmp_path / "lake").exists()
    assert sum(one.landed for one in take(tmp_path, data, lake(tmp_path))) == 2 * 279


def test_an_empty_checksum_is_no_checksum_that_holds(tmp_path: Path) -> None:
    """A sidecar that is empty itself was not copied whole either."""
    (tmp_path / "deliveries.csv.sha256").write_text("")
    with pytest.raises(InputInvalid, match="wanted SHA-256 nothing"):
        take(tmp_path, written(next_quarter()), lake(tmp_path))


@pytest.mark.parametrize("share", [0.15, 0.5, 0.85])
def test_a_file_still_being_copied_lands_when_it_is_whole(tmp_path: Path, share: float) -> None:
    """A torn last line refuses the file as a whole; the whole file lands later as if nothing had been."""
    data = written(next_quarter())
    cut = data.rindex(b"\n", 0, int(len(data) * share)) + 30
    with pytest.raises(InputInvalid, match="15 columns in every row, got 1 of another length"):
        take(tmp_path, data[:cut], lake(tmp_path))
    assert not (tmp_path / "lake").exists()
    assert sum(one.landed for one in take(tmp_path, data, lake(tmp_path))) == 2 * 279


def test_every_refused_row_names_its_line(tmp_path: Path) -> None:
    """The report by line holds with blank lines, Windows newlines and cells of several lines above the fault."""
    feed = next_quarter()
    feed.loc[2, "site"] = "Gate 4,\nQuay 7"
    feed.loc[[9, 100], "units"] = "many"
    lines = written(feed).replace(b"\n", b"\r\n").split(b"\r\n")
    lines.insert(1, b"")
    data = b"\r\n".join(lines)
    take(tmp_path, data, lake(tmp_path))
    found = lake(tmp_path).quarantined("shipment")
    reasons = found[found["reason"].str.contains("many")]
    ids = feed.set_index("id")["units"]
    raw = data.split(b"\n")
    for name, reason in zip(reasons["event_id"], reasons["reason"], strict=True):
        line = int(re.search(r"; line (\d+)$", reason)[1])  # type: ignore[index]
        assert raw[line - 1].startswith(f"{name},".encode())
        assert ids[name] == "many"
    assert len(reasons) == 2


def test_all_torn_rows_are_counted_and_the_first_are_shown(tmp_path: Path) -> None:
    """One report for the file: how many rows are of another length, with the first five."""
    lines = written(next_quarter()).split(b"\n")
    for place in range(20, 40):
        lines[place] += b",more"
    with pytest.raises(InputInvalid, match=r"got 20 of another length \(row 21 has 16: .*row 25 has 16: .*; 15 more\)"):
        take(tmp_path, b"\n".join(lines), lake(tmp_path))


@pytest.mark.parametrize("writes", [0, 1, 2])
def test_a_kill_while_landing_loses_and_doubles_nothing(tmp_path: Path, writes: int) -> None:
    """Killed before its first, second, ... part is written, the next run of the same file completes the landing."""
    feed = next_quarter()
    feed.loc[[5, 50], "units"] = "many"
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    take(whole, written(feed), lake(whole))
    (killed / "deliveries.csv").write_bytes(written(feed))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    arguments = [sys.executable, "-c", KILLED_WHILE_LANDING, str(killed), str(writes), f"{NOW:%Y-%m-%dT%H:%M:%SZ}"]
    assert subprocess.run(arguments, env=environment, cwd=ROOT, check=False).returncode == 9
    take(killed, written(feed), lake(killed))
    for kind in KINDS:
        assert lake(killed).read(kind).equals(lake(whole).read(kind))
        assert lake(killed).quarantined(kind).equals(lake(whole).quarantined(kind))


def test_formulas_leave_the_quarantine_as_text(tmp_path: Path) -> None:
    """Cells that a spreadsheet would run are escaped when the quarantine is exported; numbers stay numbers."""
    cells = ["=cmd|'/C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "-5.5", "+7", "1e3", "milk"]
    assert [safe_cell(cell)[0] for cell in cells] == ["'"] * 5 + ["-", "+", "1", "m"]
    feed = next_quarter()
    feed.loc[3, "vendor"] = cells[0]
    take(tmp_path, written(feed), lake(tmp_path))
    rows = Quarantine(lake(tmp_path)).rows("shipment")
    write_rows(tmp_path / "out.csv", rows)
    out = csv.reader(io.StringIO((tmp_path / "out.csv").read_text(encoding="utf-8-sig"), newline=""))
    found = [cell for line in out for cell in line if "cmd|" in cell]
    assert found
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in found)


@pytest.mark.parametrize("start", [b"<?xml version='1.0'?>\n", b"\xef\xbb\xbf", b"\n  "])
def test_xml_is_refused_and_its_entities_are_never_read(tmp_path: Path, start: bytes) -> None:
    """There is no XML reader: a document type that points at a file is refused before anything is looked up."""
    secret = tmp_path / "secret.txt"
    secret.write_text("not for the lake")
    entity = f'<!DOCTYPE rows [<!ENTITY x SYSTEM "{secret.as_uri()}">]><rows><row>&x;</row></rows>'
    for name in ("deliveries.xml", "deliveries.csv"):
        with pytest.raises(InputInvalid, match="got XML, which is not read") as refused:
            take(tmp_path, start + entity.encode(), lake(tmp_path), name)
        assert "not for the lake" not in str(refused.value)
