"""The access list as a file in the workspace: a projection of the ledger, so that serving goes on without it."""

from __future__ import annotations

import threading
import time
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from contracts.errors import DependencyDown, InputInvalid
from contracts.yaml_file import Strict
from registry.access import AccessList, KeyEntry, Role
from registry.durable import replace_file

LOOK_EVERY_S = 0.1
_Mark = tuple[int, int, int]


class _Key(Strict):
    prefix: Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    owner: str
    roles: tuple[Role, ...]
    models: tuple[str, ...] | None
    titles: tuple[str, ...]
    issued_at: datetime
    issued_by: str
    expires_at: datetime
    revoked_at: datetime | None
    revoked_by: str
    revoked_because: str


class _File(Strict):
    format: Literal[1] = 1
    revision: Annotated[int, Field(ge=0)]
    ledger_head: str
    keys: tuple[_Key, ...]


def write_access(path: Path, known: AccessList) -> None:
    """Replace the file in one durable step; it holds hashes of keys, no key."""
    keys = tuple(_Key(**asdict(entry)) for entry in known.keys.values())
    file = _File(revision=known.revision, ledger_head=known.ledger_head, keys=keys)
    replace_file(path, file.model_dump_json(indent=1).encode())


def read_access(path: Path) -> AccessList:
    """The access list that the file holds; an empty one when there is no file.

    Raises:
        InputInvalid: it cannot be read, or is not what an access list must be.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return AccessList()
    except OSError as error:
        raise InputInvalid(str(path), "the access list", error.strerror or str(error)) from None
    try:
        file = _File.model_validate_json(content, strict=True)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        got = f"{'.'.join(str(part) for part in first['loc']) or 'the file'}: {first['msg']}"
        hint = "run `seatrial access list` to write it again from the ledger"
        raise InputInvalid(str(path), "an access list of format 1", got, hint=hint) from None
    keys = {key.prefix: KeyEntry(**dict(key)) for key in file.keys}
    return AccessList(keys, file.revision, file.ledger_head)


class AccessFile:
    """The access list of a workspace, read again when its file was replaced.

    Args:
        path: of the file.
        every_s: look at the file at most so often; a look at every request would cost more than the key's check.
    """

    def __init__(self, path: Path, every_s: float = LOOK_EVERY_S) -> None:
        self._path, self._every_s = path, every_s
        self._lock = threading.Lock()
        self._seen: tuple[_Mark | None, AccessList] | None = None
        self._looked = 0.0

    def current(self) -> AccessList:
        """The list as the file had it at the last look.

        Raises:
            DependencyDown: the file cannot be read; nobody is let in on what it said before.
        """
        seen, now = self._seen, time.monotonic()
        if seen is not None and now - self._looked < self._every_s:
            return seen[1]
        mark = self._mark()
        if seen is None or seen[0] != mark:
            with self._lock:
                self._seen = None
                try:
                    seen = self._seen = (mark, read_access(self._path))
                except InputInvalid as error:
                    raise DependencyDown("access list", str(error)) from None
        self._looked = now
        return seen[1]

    def _mark(self) -> _Mark | None:
        try:
            state = self._path.stat()
        except OSError:
            return None
        return state.st_mtime_ns, state.st_ino, state.st_size
