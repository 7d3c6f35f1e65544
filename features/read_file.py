"""Reading somebody's CSV or Parquet file as Arrow rows; a file that is broken as a whole is refused by name."""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.dataset as ds

from contracts.errors import InputInvalid, nearest
from contracts.mapping import Reader

MAX_CSV_BYTES = 4_000_000_000


def read_file(reader: Reader, path: Path) -> pa.Table | ds.Dataset:
    """The file's rows: a table of a CSV (also inside .zip or .gz), a dataset of a Parquet file (read when asked).

    Args:
        reader: how it is read; its `file` is the name inside `path` when `path` is a folder.
        path: the file, or the folder that it is in.

    Raises:
        InputInvalid: no such file, empty, truncated, of another encoding, or with lines of another length.
    """
    file = _locate(reader, path)
    if file.stat().st_size == 0:
        raise InputInvalid(str(file), "a header and rows", "an empty file")
    kind = reader.format or ("parquet" if file.suffix == ".parquet" else "csv")
    return _parquet(file) if kind == "parquet" else _csv(reader, file)


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


def _csv(reader: Reader, file: Path) -> pa.Table:
    data = _content(file)
    header = _header(reader, file, data)
    types = dict.fromkeys(header, pa.string()) if reader.text else None
    try:
        return arrow_csv.read_csv(
            pa.BufferReader(data),
            read_options=arrow_csv.ReadOptions(encoding=_codec(reader), use_threads=False),
            parse_options=arrow_csv.ParseOptions(delimiter=reader.delimiter, newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(column_types=types, strings_can_be_null=not reader.text),
        )
    except (pa.ArrowException, UnicodeError) as error:
        raise InputInvalid(str(file), f"CSV in {reader.encoding}", str(error).splitlines()[0][:200]) from None


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
    except (zipfile.BadZipFile, gzip.BadGzipFile, EOFError, OSError) as error:
        raise InputInvalid(str(file), "a whole archive", str(error)) from None
    return file.read_bytes()


def _header(reader: Reader, file: Path, data: bytes) -> list[str]:
    stream = io.TextIOWrapper(io.BytesIO(data), encoding=_codec(reader), newline="")
    try:
        header = next(csv.reader(stream, delimiter=reader.delimiter), [])
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
