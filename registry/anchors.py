"""Anchors in a file outside the ledger, a line a row: what shows that a tail was cut or a chain replaced."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from contracts.canonical import canonical_json
from contracts.errors import InputInvalid, LedgerBroken
from contracts.rollout import LedgerRow
from registry.durable import on_disk, only_one, sync_folder
from registry.ledger import GENESIS, Anchor, Ledger, head, verify

_WANTED = "an anchor: model, revision and the 64 hexadecimal digits of the row's hash"


@dataclass(frozen=True)
class Chain:
    """One model's chain after a check: how many rows, the newest, how many anchors held, and why it is broken if so."""

    model: str
    rows: int
    head: Anchor
    anchors: int
    broken: str = ""


def record_anchor(path: Path, row: LedgerRow) -> None:
    """Append the anchor of a row that is in the ledger, durably; nothing is written that would go backwards.

    Args:
        path: the anchor file; made, with its folder, when it is missing.
        row: as the ledger gave it back.

    Raises:
        DependencyDown: the file cannot be written; the row stands, and asking for it again writes its anchor.
    """
    line = {"model": row.model, "revision": row.revision, "hash": row.hash, "at": row.at}
    with on_disk(path), only_one(path.with_name(f".{path.name}.lock")):
        there = newest_anchor(path, row.model)
        if there is None or there.revision < row.revision:
            _append_lines(path, [line])


def record_restored(path: Path, heads: Iterable[Anchor], at: datetime, actor: str) -> None:
    """Append, for every chain of a restored ledger, where it ends now; later anchors of before stand no more.

    Raises:
        DependencyDown: the file cannot be written.
    """
    lines = [{"model": a.model, "revision": a.revision, "hash": a.hash, "at": at, "restored_by": actor} for a in heads]
    with on_disk(path), only_one(path.with_name(f".{path.name}.lock")):
        _append_lines(path, lines)


def read_anchors(path: Path) -> tuple[Anchor, ...]:
    """The anchors that stand, in the order they were written; none when there is no file.

    A line that a crash cut short is passed over. A restored ledger's line takes away what was anchored after it.

    Raises:
        InputInvalid: a whole line is not an anchor.
        DependencyDown: the file cannot be read.
    """
    found: list[Anchor] = []
    for number, line in enumerate(_lines(path), start=1):
        if not line.endswith("}"):
            continue
        anchor, restored = _parsed(path, number, line)
        if restored:
            found = [a for a in found if a.model != anchor.model or a.revision < anchor.revision]
        found.append(anchor)
    return tuple(found)


def newest_anchor(path: Path, model: str) -> Anchor | None:
    """The last anchor of a model in the file, None when there is none; reads from the end.

    Raises:
        InputInvalid: a whole line is not an anchor.
        DependencyDown: the file cannot be read.
    """
    lines = _lines(path)
    for number in range(len(lines), 0, -1):
        if lines[number - 1].endswith("}"):
            anchor, _ = _parsed(path, number, lines[number - 1])
            if anchor.model == model:
                return anchor
    return None


def parse_anchor(text: str) -> Anchor:
    """An anchor copied by hand, `model revision hash`, as a report prints it.

    Raises:
        InputInvalid: not three words of that kind.
    """
    words = text.split()
    try:
        return _checked(Anchor(words[0], int(words[1]), words[2]))
    except (IndexError, ValueError):
        raise InputInvalid("anchor", _WANTED, text) from None


def check_chains(ledger: Ledger, anchors: Sequence[Anchor], only: str = "") -> tuple[Chain, ...]:
    """Every chain of a ledger checked from its first row and against all anchors of its model.

    Args:
        ledger: any ledger.
        anchors: from the anchor file, or by hand; a model that only they know is an emptied chain.
        only: one model, or empty for all.

    Returns:
        one Chain a model, by name; `broken` says what does not hold.
    """
    known = {*ledger.models(), *(a.model for a in anchors)}
    return tuple(_checked_chain(ledger, anchors, model) for model in sorted(known) if only in ("", model))


def _checked_chain(ledger: Ledger, anchors: Sequence[Anchor], model: str) -> Chain:
    mine = [a for a in anchors if a.model == model]
    try:
        rows = ledger.rows(model)
        if not rows and mine:
            newest = max(a.revision for a in mine)
            why = f"rows up to {newest} were there before; the tail is gone, all of it: another database?"
            raise LedgerBroken(model, 1, why)
        verify(rows, *mine)
    except LedgerBroken as error:
        return Chain(model, 0, Anchor(model, 0, GENESIS), len(mine), str(error))
    return Chain(model, len(rows), head(rows, model), len(mine))


def _lines(path: Path) -> list[str]:
    with on_disk(path):
        return path.read_text("utf-8", errors="replace").split("\n") if path.exists() else []


def _parsed(path: Path, number: int, line: str) -> tuple[Anchor, bool]:
    try:
        plain = json.loads(line)
        return _checked(Anchor(plain["model"], plain["revision"], plain["hash"])), "restored_by" in plain
    except (ValueError, TypeError, KeyError):
        raise InputInvalid(f"{path}:{number}", _WANTED, line[:120]) from None


def _checked(anchor: Anchor) -> Anchor:
    if not isinstance(anchor.model, str) or type(anchor.revision) is not int or anchor.revision < 0:
        raise ValueError(_WANTED)
    if len(anchor.hash) != 64 or set(anchor.hash) - set("0123456789abcdef"):
        raise ValueError(_WANTED)
    return anchor


def _append_lines(path: Path, lines: Iterable[dict[str, object]]) -> None:
    text = "".join(canonical_json(line) + "\n" for line in lines)
    new = not path.exists()
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        end = os.fstat(handle).st_size
        if end and os.pread(handle, 1, end - 1) != b"\n":
            text = "\n" + text
        content = text.encode()
        while content:
            content = content[os.write(handle, content) :]
        os.fsync(handle)
    finally:
        os.close(handle)
    if new:
        sync_folder(path.parent)
