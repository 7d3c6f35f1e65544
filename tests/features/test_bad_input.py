"""Bad input: broken files and mappings are refused whole with the place and the remedy; bad rows are set apart."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.errors import ConfigInvalid, InputInvalid
from contracts.mapping import EventsFile, load_mapping
from contracts.policy import load_policy
from features.importer import ingest, stage
from features.landing import Landing

ROOT = Path(__file__).parents[2]
SCHEDULE = """
source_system: port
inputs: {legs: {}}
events:
  - kind: shipment
    columns:
      event_id: {from: id}
      event_time: {from: booked}
      known_at: {from: booked}
      shipment_id: {from: id}
      carrier: {from: carrier}
      origin: {value: Hamburg}
      destination: {from: to}
      promised_at: {from: promised, format: ["%d-%b-%y", "%Y-%m-%d"]}
      quantity: {from: units}
"""
HEADER = "id,booked,carrier,to,promised,units\n"
GOOD = "s1,2026-01-01T08:00:00+01:00,Blue,Oslo,9-Jan-26,5\n"


def mapped(tmp_path: Path, text: str = SCHEDULE) -> EventsFile:
    file = tmp_path / "port.yaml"
    file.write_text(text)
    return load_mapping(file)


def csv(tmp_path: Path, text: str | bytes) -> Path:
    file = tmp_path / "legs.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    """A file of no bytes is a fault of the delivery, not a day without rows."""
    with pytest.raises(InputInvalid, match=r"legs.csv: wanted a header and rows, got an empty file"):
        stage(mapped(tmp_path), csv(tmp_path, ""))


def test_a_header_alone_is_no_rows(tmp_path: Path) -> None:
    """A file with a header and no rows stages nothing and lands nothing."""
    file = csv(tmp_path, HEADER)
    assert stage(mapped(tmp_path), file).rows_in == {"shipment": 0}
    assert ingest(mapped(tmp_path), file, Landing(tmp_path / "lake")) == []


def test_a_truncated_parquet_is_refused(tmp_path: Path) -> None:
    """A Parquet file that lost its end, or its middle, is refused by name."""
    whole = tmp_path / "legs.parquet"
    pq.write_table(pa.table({"id": [f"s{n}" for n in range(5000)]}), whole)
    data = whole.read_bytes()
    for broken in (data[:-10], data[: len(data) // 2], b"PAR1" + bytes(len(data) - 8) + data[-8:]):
        whole.write_bytes(broken)
        with pytest.raises(InputInvalid, match=r"legs\.parquet|SQL that runs"):
            stage(mapped(tmp_path), whole)


def test_a_column_that_is_not_there_is_named_with_the_nearest(tmp_path: Path) -> None:
    """A renamed source column stops the run and names what the mapping wanted and what looks like it."""
    file = csv(tmp_path, HEADER.replace("carrier", "carriers") + GOOD)
    with pytest.raises(InputInvalid, match=r"shipment.carrier.schema: .*got 'carrier'; did you mean 'carriers'"):
        stage(mapped(tmp_path), file)


def test_a_field_that_is_not_in_the_contract_is_named(tmp_path: Path) -> None:
    """A canonical field that the kind does not have is refused with the nearest one."""
    with pytest.raises(InputInvalid, match="did you mean 'destination'"):
        stage(mapped(tmp_path, SCHEDULE.replace("destination:", "destinaton:")), csv(tmp_path, HEADER + GOOD))


def test_a_misspelt_mapping_key_is_named_with_its_line(tmp_path: Path) -> None:
    """A typing error in a mapping names file, line, key and the nearest valid key."""
    with pytest.raises(ConfigInvalid, match=r"port.yaml:14: .*did you mean 'format'"):
        mapped(tmp_path, SCHEDULE.replace("format:", "fromat:"))


def test_a_misspelt_policy_key_is_named_with_its_line(tmp_path: Path) -> None:
    """A typing error in a policy names file, line, key and the nearest valid key."""
    text = (ROOT / "policies" / "demand.yaml").read_text().replace("cooldown:", "cooldwon:")
    line = next(number for number, row in enumerate(text.splitlines(), 1) if "cooldwon" in row)
    (tmp_path / "demand.yaml").write_text(text)
    with pytest.raises(ConfigInvalid, match=rf"demand.yaml:{line}: .*did you mean 'cooldown'"):
        load_policy(tmp_path / "demand.yaml")


def test_bad_rows_are_set_apart_with_reasons(tmp_path: Path) -> None:
    """Wrong types, words for dates, naive times, duplicate ids, missing keys are quarantined; mixed zones are not."""
    rows = [
        GOOD,
        "s2,2026-01-01T08:00:00Z,Blue,Oslo,2026-01-09,5\n",
        "s3,2026-01-01T08:00:00Z,Blue,Oslo,9-Jan-26,five\n",
        "s4,2026-01-01T08:00:00Z,Blue,Oslo,Date Not Captured,5\n",
        "s5,2026-01-01T08:00:00,Blue,Oslo,9-Jan-26,5\n",
        "s1,2026-01-01T08:00:00Z,Blue,Oslo,9-Jan-26,5\n",
        "s6,2026-01-01T08:00:00Z,,Oslo,9-Jan-26,5\n",
    ]
    landing = Landing(tmp_path / "lake")
    receipts = ingest(mapped(tmp_path), csv(tmp_path, HEADER + "".join(rows)), landing)
    assert (sum(one.rows_in for one in receipts), sum(one.landed for one in receipts)) == (7, 2)
    reasons = landing.quarantined("shipment").set_index("event_id")["reason"]
    assert reasons["s3"] == "quantity: wanted a number, got 'five' [logicalType]; line 4"
    wanted = "promised_at: wanted a time like %d-%b-%y or %Y-%m-%d, got 'Date Not Captured' [logicalType]; line 5"
    assert reasons["s4"] == wanted
    assert reasons["s5"].startswith("event_time: wanted a time with a zone")
    assert reasons["s1"] == "event_id: wanted an id that was not used before, got 's1' [unique]"
    assert reasons["s6"] == "carrier: wanted a value, got nothing [required]; line 8"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (HEADER.encode() + "s1,2026-01-01T08:00:00Z,Blå,Oslo,9-Jan-26,5\n".encode("latin-1"), "utf-8"),
        (
            HEADER + "s1,2026-01-01T08:00:00Z,Blue\n",
            r"wanted 6 columns in every row, got 1 of another length \(row 2 has 3: 's1",
        ),
        ("id,booked,carrier,to,promised,id\n", "'id' more than once"),
        ("\n" + GOOD, "a blank line"),
    ],
)
def test_files_that_are_no_such_csv_are_refused(tmp_path: Path, content: str | bytes, words: str) -> None:
    """Another encoding, torn lines, repeated or absent column names refuse the file as a whole."""
    with pytest.raises(InputInvalid, match=words):
        stage(mapped(tmp_path), csv(tmp_path, content))


def test_byte_order_mark_mixed_newlines_and_quotes_are_read(tmp_path: Path) -> None:
    """A byte order mark, Windows newlines and a quoted comma are no faults."""
    row = 's1,2026-01-01T08:00:00Z,"Blue, Red & Co",Oslo,9-Jan-26,5\r\n'
    staged = stage(mapped(tmp_path), csv(tmp_path, b"\xef\xbb\xbf" + (HEADER + row).encode()))
    assert staged.events["shipment"]["carrier"].tolist() == ["Blue, Red & Co"]


def test_archives_hold_one_whole_file(tmp_path: Path) -> None:
    """A zip with one CSV is read; one with two files, or a torn one, is refused."""
    archive = tmp_path / "legs.csv.zip"
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("legs.csv", HEADER + GOOD)
    assert stage(mapped(tmp_path), archive).rows_in == {"shipment": 1}
    with zipfile.ZipFile(archive, "a") as out:
        out.writestr("more.csv", HEADER)
    with pytest.raises(InputInvalid, match="2 files"):
        stage(mapped(tmp_path), archive)
    archive.write_bytes(archive.read_bytes()[:50])
    with pytest.raises(InputInvalid, match="a whole archive"):
        stage(mapped(tmp_path), archive)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "COPY legs TO '{folder}/out.csv'",
        "SELECT 1; SELECT 2",
        "ATTACH '{folder}/out.db'",
        "SET enable_external_access = true",
        "INSTALL httpfs",
        "SELECT * FROM read_parquet('https://example.org/x.parquet')",
        "SELECT nothing FROM legs",
    ],
)
def test_sql_is_closed_in(tmp_path: Path, sql: str) -> None:
    """A mapping's SQL is one SELECT over its inputs: no files, no network, no settings, no second statement."""
    prepare = f"prepare: {sql.format(folder=tmp_path)!r}\n".replace("'", '"') if "'" not in sql else None
    text = SCHEDULE + (prepare or f'prepare: "{sql.format(folder=tmp_path)}"\n')
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputInvalid, match="prepare"):
        stage(mapped(tmp_path, text), csv(tmp_path, HEADER + GOOD))
    assert {path.name for path in tmp_path.iterdir()} - {path.name for path in before} <= {"port.yaml", "legs.csv"}


def test_a_file_outside_the_folder_is_refused(tmp_path: Path) -> None:
    """An input's file name cannot leave the folder that was given."""
    (tmp_path / "in").mkdir()
    csv(tmp_path, HEADER + GOOD)
    mapping = mapped(tmp_path, SCHEDULE.replace("{legs: {}}", "{legs: {file: ../legs.csv}}"))
    with pytest.raises(InputInvalid, match="inside the folder"):
        stage(mapping, tmp_path / "in")
    with pytest.raises(InputInvalid, match=r"did you mean 'legs.csv'"):
        stage(mapped(tmp_path, SCHEDULE.replace("{legs: {}}", "{legs: {file: leg.csv}}")), tmp_path)


CELL = st.one_of(
    st.sampled_from(
        ["", "NA", "s1", "Oslo", "2026-01-01", "9-Jan-26", "2026-01-01T00:00:00Z", "5", "-5", "1e400", "See DN-304"]
    ),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters='"\r\n\x00'), max_size=6),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow])
@given(rows=st.lists(st.lists(CELL, min_size=6, max_size=6), max_size=8))
def test_any_cells_are_landed_or_quarantined(tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]) -> None:
    """Whatever a CSV's cells hold: rows in = landed + quarantined, and ingesting again changes nothing."""
    folder = tmp_path_factory.mktemp("fuzz")
    file = csv(folder, HEADER + "".join(",".join(f'"{cell}"' for cell in row) + "\n" for row in rows))
    mapping, landing = mapped(folder), Landing(folder / "lake")
    receipts = ingest(mapping, file, landing)
    assert sum(one.rows_in for one in receipts) == len(rows)
    assert len(landing.read("shipment")) + len(landing.quarantined("shipment")) == len(rows)
    assert all(one.already for one in ingest(mapping, file, landing))
