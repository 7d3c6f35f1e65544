"""Append-only log segments, one file a writing process: JSON lines that a crash cannot make lie.

A line is `crc32 key json`. The writer opens its own file with O_APPEND and hands each record to the kernel in one
write, so that killing the process loses nothing that was acknowledged. Readers skip a damaged line and leave an
unfinished last one for later.
"""

from __future__ import annotations

import os
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import orjson

from contracts.errors import DependencyDown, InputInvalid

Stream = Literal["decisions", "shadow", "outcomes"]
SEGMENT_BYTES = 64 * 1024 * 1024
_HEAD = 9


class SegmentReader:
    """Reads one stream of a log folder; holds no handle that could write.

    Args:
        folder: the log folder (`Settings.decisions`); need not exist yet.
        stream: which of its streams.
    """

    def __init__(self, folder: Path, stream: Stream) -> None:
        self.folder, self.stream = Path(folder), stream
        self.damaged = 0

    def segments(self) -> list[Path]:
        """Segment files, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(self.folder.glob(f"{self.stream}-*.jsonl"))

    def read(self, since: Mapping[str, int] | None = None) -> tuple[list[dict[str, Any]], dict[str, int]]:
        """Records after the given offsets, and the offsets after them; pass those to read only what is new.

        Args:
            since: segment file name -> bytes already read; None reads everything.
        """
        offsets = dict(since or {})
        records: list[dict[str, Any]] = []
        for segment, _, payload, end in self.lines(offsets):
            records.append(orjson.loads(payload))
            offsets[segment] = end
        return records, offsets

    def lines(self, since: Mapping[str, int]) -> Iterator[tuple[str, str, bytes, int]]:
        """(segment name, key, JSON bytes, offset after the line) of each sound line after `since`."""
        for path in self.segments():
            start = since.get(path.name, 0)
            if path.stat().st_size <= start:
                continue
            with path.open("rb") as file:
                file.seek(start)
                end = start
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    end += len(line)
                    parted = unframe(line)
                    if parted is None:
                        self.damaged += line != b"\n"
                        continue
                    yield path.name, parted[0], parted[1], end

    def payload(self, segment: str, end: int) -> bytes:
        """The JSON bytes of the line that ends at `end`, as given by `lines`.

        Raises:
            InputInvalid: there is no sound line there any more.
        """
        path = self.folder / segment
        with path.open("rb") as file:
            size = 16384
            while True:
                start = max(end - size, 0)
                file.seek(start)
                chunk = file.read(end - start)
                cut = chunk.rfind(b"\n", 0, len(chunk) - 1)
                if cut >= 0 or start == 0:
                    break
                size *= 8
        parted = unframe(chunk[cut + 1 :])
        if parted is None:
            raise InputInvalid(f"{segment}@{end}", "a sound log line", "something else")
        return parted[1]


class SegmentLog(SegmentReader):
    """Also appends, to a segment of this process alone; the file is made at the first append.

    Args:
        segment_bytes: a segment that has grown past this is closed and a new one begun.
    """

    def __init__(self, folder: Path, stream: Stream, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        super().__init__(folder, stream)
        self._limit = segment_bytes
        self._lock = threading.Lock()
        self._file: int | None = None
        self._pid = 0
        self._name = ""
        self._end = 0
        self._torn = False
        self._made = 0

    def append(self, record: Mapping[str, Any], key: str = "-") -> tuple[str, int]:
        """Append one record; returns (segment name, offset after the line).

        Raises:
            DependencyDown: the record could not be written whole; nothing of it will be read.
        """
        return self.append_json(key, orjson.dumps(record))

    def append_json(self, key: str, payload: bytes) -> tuple[str, int]:
        """Append one record that is JSON already, on one line; see `append`."""
        line = frame(key, payload)
        with self._lock:
            try:
                file = self._writable()
                if self._torn:
                    line = b"\n" + line
                written = os.write(file, line)
            except OSError as error:
                self._torn = self._file is not None
                raise DependencyDown(f"{self.stream} log", error.strerror or "write failed") from error
            self._end += written
            self._torn = written < len(line)
            if self._torn:
                raise DependencyDown(f"{self.stream} log", "the disk took only a part of a record")
            return self._name, self._end

    def sync(self) -> None:
        """Bring what was appended onto the disk (fdatasync)."""
        with self._lock:
            if self._file is not None and self._pid == os.getpid():
                os.fdatasync(self._file)

    def close(self) -> None:
        """Close the segment; a later append begins a new one."""
        with self._lock:
            if self._file is not None and self._pid == os.getpid():
                os.close(self._file)
            self._file = None

    def _writable(self) -> int:
        """This process's open segment: a new one at the start, after a fork and when the last has grown too long."""
        if self._file is not None and self._pid == os.getpid() and self._end < self._limit:
            return self._file
        if self._file is not None and self._pid == os.getpid():
            os.close(self._file)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._pid, self._made = os.getpid(), self._made + 1
        self._name = f"{self.stream}-{time.time_ns():020d}-{self._pid}-{self._made}.jsonl"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL
        self._file, self._end, self._torn = os.open(self.folder / self._name, flags, 0o640), 0, False
        return self._file


def frame(key: str, payload: bytes) -> bytes:
    """One log line: CRC-32 of the rest as 8 hexadecimal digits, the key (no spaces), the JSON, a newline."""
    body = key.encode() + b" " + payload
    return b"%08x " % zlib.crc32(body) + body + b"\n"


def unframe(line: bytes) -> tuple[str, bytes] | None:
    """(key, JSON bytes) of a log line, or None when its checksum does not hold."""
    body = line[_HEAD:-1]
    try:
        if len(line) <= _HEAD or int(line[:8], 16) != zlib.crc32(body):
            return None
    except ValueError:
        return None
    key, _, payload = body.partition(b" ")
    return key.decode(), payload
