"""Reading somebody's CSV or Parquet file as Arrow rows; a file that is broken as a whole is refused by name.

There is no XML reader, so no entity of an XML file is ever looked up: such a file is refused by its first bytes.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.dataset as ds

from contracts.errors import InputInvalid, nearest
from contracts.mapping import Reader
from features.checks import LINE

MAX_CSV_BYTES = 4_000_000_000
_SHOWN_LINES = 5
_MARKUP = (b"<?xml", b"<!DOCTYPE", b"<!ENTITY")


def read_file(reader: Reader, path: Path, *, lines: bool = False) -> pa.Table | ds.Dataset:
    """The file's rows: a table of a CSV (also inside .zip or .gz), a dataset of a Parquet file (read when asked).

    A file `NAME.sha256` beside the file, as sha256sum writes it, must hold the file's checksum.

    Args:
        reader: how it is read; its `file` is the name inside `path` when `path` is a folder.
        path: the file, or the folder that it is in.
        lines: give a CSV's rows a column `source_line`: the line in the file on which the row begins, the first is 1.

    Raises:
        InputInvalid: no such file, empty, truncated, of another checksum or encoding, XML, with a quote that is never
            closed, or with lines of another length (the first ones are named).
    """
    file = _locate(reader, path)
    if file.stat().st_size == 0:
        raise InputInvalid(str(file), "a header and rows", "an empty file")
    _compare_checksum(file)
    kind = reader.format or ("parquet" if file.suffix == ".parquet" else "csv")
    return _parquet(file) if kind == "parquet" else _csv(reader, file, lines)


def _compare_checksum(file: Path) -> None:
    beside = file.with_name(f"{file.name}.sha256")
    if not beside.is_file():
        return
    said = (beside.read_text(encoding="utf-8", errors="replace").split() or ["nothing"])[0].lower()
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if said != found:
        hint = "the file is not the one that was sent: fetch it again"
        raise InputInvalid(str(file), f"SHA-256 {said[:64]}, as {beside.name} says", found, hint=hint)


def _locate(reader: Reader, path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise InputInvalid(str(path), "a file or folder", "no such file")
    if reader.file is None:
        raise InputInvalid(str(path), "a file, as the mapping's input names none (file:)", "a folder")
    file = (path / reader.file).resolve()
    if not file.is_relative_to(path.resolve()):
        raise InputInvalid(str(path), "an input inside the folder", repr(reader.file))
    if not file.is_file():
        close = nearest(reader.file, (item.name for item in path.iterdir()))
        hint = f"did you mean {close!r}?" if close else ""
        raise InputInvalid(str(path), f"a file {reader.file!r} in it", "none", hint=hint)
    return file


def _parquet(file: Path) -> ds.Dataset:
    try:
        found = ds.dataset(file, format="parquet")
        found.schema  # noqa: B018
    except (pa.ArrowException, OSError) as error:
        raise InputInvalid(str(file), "a whole Parquet file", str(error).splitlines()[0]) from None
    return found


def _csv(reader: Reader, file: Path, lines: bool) -> pa.Table:
    data = _content(file)
    if data.lstrip(b"\xef\xbb\xbf \t\r\n")[:9].startswith(_MARKUP):
        raise InputInvalid(str(file), "CSV or Parquet", "XML, which is not read")
    header = _header(reader, file, data)
    types = dict.fromkeys(header, pa.string()) if reader.text else None
    torn: list[arrow_csv.InvalidRow] = []

    def skip(row: arrow_csv.InvalidRow) -> str:
        torn.append(row)
        return "skip"

    parse = arrow_csv.ParseOptions(delimiter=reader.delimiter, newlines_in_values=True, invalid_row_handler=skip)
    try:
        rows = arrow_csv.read_csv(
            pa.BufferReader(data),
            read_options=arrow_csv.ReadOptions(encoding=_codec(reader), use_threads=False),
            parse_options=parse,
            convert_options=arrow_csv.ConvertOptions(column_types=types, strings_can_be_null=not reader.text),
        )
    except (pa.ArrowException, UnicodeError) as error:
        raise InputInvalid(str(file), f"CSV in {reader.encoding}", str(error).splitlines()[0][:200]) from None
    if torn:
        raise _torn_rows(file, torn)
    if data.count(b'"') % 2:
        _check_quotes(reader, file, data)
    return rows.append_column(LINE, pa.array(_lines(reader, data, rows.num_rows))) if lines else rows


def _torn_rows(file: Path, torn: list[arrow_csv.InvalidRow]) -> InputInvalid:
    """The report of rows that are too short or too long; rows are counted without blank lines, the header is row 1."""
    told = [
        f"row {row.number} has {row.actual_columns}: {row.text[:60]!r}" if row.number else f"{row.text[:60]!r}"
        for row in torn[:_SHOWN_LINES]
    ]
    more = f"; {len(torn) - len(told)} more" if len(torn) > len(told) else ""
    got = f"{len(torn)} of another length ({'; '.join(told)}{more})"
    hint = "nothing of the file was taken; a torn last row is a file that was not copied whole"
    return InputInvalid(str(file), f"{torn[0].expected_columns} columns in every row", got, hint=hint)


def _check_quotes(reader: Reader, file: Path, data: bytes) -> None:
    """Refuse a quote that is opened and never closed: everything behind it would be one cell."""
    records = csv.reader(_text(reader, data), delimiter=reader.delimiter, strict=True)
    opened = 0
    try:
        for _ in records:
            opened = records.line_num
    except csv.Error as error:
        if "unexpected end" in str(error) or "field larger" in str(error):
            got = f"one that begins after line {opened} and never ends"
            raise InputInvalid(str(file), "quotes that are closed", got) from None


def _lines(reader: Reader, data: bytes, rows: int) -> np.ndarray:
    """The line on which each row begins; 0 for all when that cannot be said."""
    newlines = data.count(b"\n") + (not data.endswith(b"\n"))
    if newlines == rows + 1:
        return np.arange(2, rows + 2, dtype="int64")
    starts, before = [], 0
    records = csv.reader(_text(reader, data), delimiter=reader.delimiter)
    try:
        for record in records:
            if record:
                starts.append(before + 1)
            before = records.line_num
    except csv.Error:
        return np.zeros(rows, dtype="int64")
    found = np.array(starts[1:], dtype="int64")
    return found if len(found) == rows else np.zeros(rows, dtype="int64")


def _text(reader: Reader, data: bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(data), encoding=_codec(reader), newline="")


def _content(file: Path) -> bytes:
    """The file's bytes, out of its one-member zip or gzip when it is one."""
    try:
        if file.suffix == ".zip":
            with zipfile.ZipFile(file) as archive:
                members = [item for item in archive.infolist() if not item.is_dir()]
                if len(members) != 1 or members[0].file_size > MAX_CSV_BYTES:
                    got = f"{len(members)} files of {sum(item.file_size for item in members)} bytes"
                    raise InputInvalid(str(file), f"one file of at most {MAX_CSV_BYTES} bytes in the archive", got)
                return archive.read(members[0])
        if file.suffix == ".gz":
            with gzip.open(file) as stream:
                data = stream.read(MAX_CSV_BYTES + 1)
                if len(data) > MAX_CSV_BYTES:
                    raise InputInvalid(str(file), f"at most {MAX_CSV_BYTES} bytes unpacked", "more")
                return data
    except (zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise InputInvalid(str(file), "a whole archive", str(error)) from None
    return file.read_bytes()


def _header(reader: Reader, file: Path, data: bytes) -> list[str]:
    try:
        header = next(csv.reader(_text(reader, data), delimiter=reader.delimiter), [])
    except (UnicodeError, LookupError, csv.Error) as error:
        raise InputInvalid(str(file), f"text in {reader.encoding}", str(error)[:200]) from None
    header = [name.removeprefix("\ufeff") for name in header]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise InputInvalid(str(file), "column names that differ", f"{twice[0]!r} more than once")
    if not any(name.strip() for name in header):
        raise InputInvalid(str(file), "a header line with column names", "a blank line")
    return header


def _codec(reader: Reader) -> str:
    """Arrow takes a byte order mark off UTF-8 by itself and is fastest when it need not convert."""
    name = reader.encoding.lower().replace("_", "-")
    return "utf8" if name in ("utf-8", "utf8", "utf-8-sig") else reader.encoding
