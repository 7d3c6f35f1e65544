"""Events into a file: one JSON object a line, on disk before it is called delivered, each event once."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

from contracts.canonical import canonical_json
from contracts.errors import TargetRefused
from registry.durable import only_one, sync_folder
from registry.outbox import Sent


class EventFile:
    """Appends events to one file; an event that stands there already is not written again.

    A crash can leave half a line at the end: it was never called delivered, is cut off, and the event comes again. Who
    rotates the file forgets what stood in it, so that the last event can come twice.

    Args:
        path: the file; made with its folder when it is not there.

    Raises:
        TargetRefused: the path is a link or no file, or a file that holds something other than events.
    """

    def __init__(self, path: Path) -> None:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise TargetRefused(str(path), "wanted a file of events, got a link, a folder or a device")
        self._path = path
        self._ids: set[str] = set()
        self._read_to, self._file = 0, (0, 0)
        if path.exists():
            with path.open("rb") as file:
                _must_be_ours(path, file.readline(1_000_000))

    def send(self, event: dict[str, Any], now: datetime) -> Sent:
        """See Sender.send."""
        try:
            with only_one(self._path.with_name(f".{self._path.name}.lock")):
                self._catch_up()
                if event["id"] not in self._ids:
                    _append(self._path, canonical_json(event).encode() + b"\n")
        except OSError as error:
            return Sent(False, f"{self._path}: {error.strerror or type(error).__name__}")
        return Sent(True)

    def close(self) -> None:
        """See Sender.close."""

    def _catch_up(self) -> None:
        """Learn the ids of lines that were added since the last look; cut off half a line at the end."""
        if not self._path.exists():
            self._ids, self._read_to, self._file = set(), 0, (0, 0)
            return
        with self._path.open("r+b") as file:
            found = os.fstat(file.fileno())
            if (found.st_dev, found.st_ino) != self._file or found.st_size < self._read_to:
                self._ids, self._read_to, self._file = set(), 0, (found.st_dev, found.st_ino)
            file.seek(self._read_to)
            for line in file:
                if not line.endswith(b"\n"):
                    file.truncate(self._read_to)
                    os.fsync(file.fileno())
                    return
                self._read_to += len(line)
                self._ids.add(_id(line))


def _append(path: Path, line: bytes) -> None:
    new = not path.exists()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o640)
    try:
        written = 0
        while written < len(line):
            written += os.write(handle, line[written:])
        os.fsync(handle)
    finally:
        os.close(handle)
    if new:
        sync_folder(path.parent)


def _must_be_ours(path: Path, first: bytes) -> None:
    """Refuse somebody else's file, whose last line could be taken for half an event of ours."""
    if first.endswith(b"\n") and not _id(first):
        raise TargetRefused(str(path), "its first line is no event; nothing is added to somebody else's file")
    if first and not first.endswith(b"\n") and not first.startswith(b'{"'):
        raise TargetRefused(str(path), "its first line is no event; nothing is added to somebody else's file")


def _id(line: bytes) -> str:
    try:
        event = json.loads(line)
        return str(event["id"]) if "specversion" in event else ""
    except (ValueError, TypeError, KeyError):
        return ""
