"""Writing files so that a crash leaves the old content or the new, never half of either."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from contracts.errors import DependencyDown
from registry.crashpoints import crash_point


@contextlib.contextmanager
def on_disk(place: Path) -> Iterator[None]:
    """Turn a disk that is full, failing or read-only into DependencyDown, naming the place.

    Raises:
        DependencyDown: the system refused to read or write.
    """
    try:
        yield
    except OSError as error:
        first = error.args[0] if error.args else ""
        why = error.strerror or (str(first[0][-1]) if isinstance(first, list) and first else str(error))
        raise DependencyDown("disk", f"{place}: {why}") from error


def sync_folder(folder: Path) -> None:
    """Make the folder's entries (new, renamed, removed names) durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` at `path` in one step: a reader sees all of the old or all of the new.

    Only one process at a time may write a path. The temporary file lies beside it and is removed when anything fails;
    what a crash left there goes with the next writing.

    Raises:
        DependencyDown: the disk is full or failing; the old content is still there.
    """
    with on_disk(path):
        _replace(path, content)


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        leftover.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        crash_point("file.written")
        temporary.replace(path)
        crash_point("file.replaced")
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


@contextlib.contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Wait for, hold and give back an exclusive lock on the file `path`; the system gives it back when we die."""
    import fcntl  # not on every system, and only writers need it

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
