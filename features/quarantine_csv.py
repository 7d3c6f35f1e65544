"""Refused rows as a CSV for a spreadsheet, and the corrected cells of such a file back again."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pandas as pd

from contracts.errors import DependencyDown, InputInvalid, nearest
from contracts.events import event_contract
from features.export_cells import safe_cell

_ABOUT = ("id", "state", "reason", "source")


def write_rows(path: Path, rows: pd.DataFrame) -> None:
    """Write rows of `Quarantine.rows`: id, state, reason, source, and the fields, one line a row.

    Cells that a spreadsheet would run as a formula begin with an apostrophe. The file is there whole or not at all.

    Raises:
        DependencyDown: the file cannot be written.
    """
    fields = [name for name in rows.columns if name not in (*_ABOUT, "group", "rule", "batch", "row")]
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with unfinished.open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*_ABOUT, *fields])
            for cells in rows[[*_ABOUT, *fields]].itertuples(index=False):
                writer.writerow([_cell(cell) for cell in cells])
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise DependencyDown(str(path), str(error)) from error


def read_corrections(path: Path, rows: pd.DataFrame, kind: str) -> dict[str, dict[str, str | None]]:
    """Rows named in a file, each with the fields whose cell is another than `write_rows` gave.

    Args:
        path: CSV with an `id` column and any fields of the kind; further columns of `write_rows` are not looked at.
        rows: `Quarantine.rows` of the kind.
        kind: an event kind.

    Returns:
        row id -> field -> text, None where the cell was emptied; a row without changes has no fields.

    Raises:
        InputInvalid: no such file, no `id` column, an unknown column or row, a row twice, or a line that is cut off.
    """
    names = event_contract(kind).names
    known = dict(zip(rows["id"], rows[list(names)].to_dict("records"), strict=True))
    found: dict[str, dict[str, str | None]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            header = next(lines, [])
            _check_header(path, header, names)
            for number, cells in enumerate(lines, start=2):
                where = f"{path}, row {number}"
                if len(cells) != len(header):
                    raise InputInvalid(where, f"{len(header)} cells, like the header", str(len(cells)))
                line = dict(zip(header, cells, strict=True))
                row = line["id"]
                if row not in known or row in found:
                    raise InputInvalid(where, f"the id of a refused row of {kind}, once", repr(row))
                before = {str(name): _cell(text) for name, text in known[row].items()}
                changed = [name for name in names if line.get(name, before[name]) != before[name]]
                found[row] = {name: line[name] or None for name in changed}
    except (OSError, UnicodeError, csv.Error) as error:
        raise InputInvalid(str(path), "a CSV in UTF-8", str(error)) from None
    return found


def _check_header(path: Path, header: list[str], names: tuple[str, ...]) -> None:
    if "id" not in header:
        raise InputInvalid(
            str(path), "a column 'id' with the row ids of `show --csv`", ", ".join(header)[:200] or "nothing"
        )
    for name in header:
        if name not in (*_ABOUT, *names) or header.count(name) > 1:
            close = nearest(name, names)
            hint = f"did you mean {close!r}?" if close and close != name else ""
            raise InputInvalid(str(path), f"columns out of {', '.join(names)}, each once", repr(name), hint=hint)


def _cell(value: object) -> str:
    return safe_cell(value) if isinstance(value, str) else ""
