"""Every error that Seatrial raises on purpose.

    SeatrialError
    ├── UsageError            what was asked for is malformed: files, flags, requests      (exit 2)
    │   ├── ConfigInvalid     a YAML file breaks its schema
    │   ├── InputInvalid      a data file cannot be read as what its mapping says
    │   ├── UnknownName       a name that is not among the known ones
    │   ├── TimeInvalid       a time without a zone, or out of order
    │   ├── Unauthenticated   no key or token, or one that is wrong, expired or revoked
    │   └── TargetRefused     an address that events or files may not go to or come from
    ├── CheckFailed           a check ran and said no                                      (exit 1)
    │   ├── ArtifactRefused   a model's files are not what its manifest says, or unsafe
    │   ├── LedgerBroken      the hash chain does not hold
    │   ├── Forbidden         who asks may not do this
    │   ├── RowGuarantee      rows out are not rows in
    │   └── NotEnoughData     too few rows for an honest answer
    ├── DependencyDown        a store or server that is needed does not answer             (exit 3)
    └── Conflict              somebody else was first                                      (exit 4)
        ├── LedgerConflict    the expected revision is not the newest any more
        └── RequestConflict   the same request id came with another body

Constructors take the facts and build the sentence. There is no HTTP status here: the shells translate.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name closest in spelling to `name`, or None when nothing is close."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return close[0] if close else None


class SeatrialError(Exception):
    """Root of all errors raised on purpose; `exit_code` is what the command line ends with."""

    exit_code = 1


class UsageError(SeatrialError):
    """What was asked for is malformed."""

    exit_code = 2


class ConfigInvalid(UsageError):
    """A configuration file breaks its schema.

    Args:
        file: the file's name.
        key: dotted path of the key inside it.
        wanted: what would have been accepted.
        got: what stood there.
        line: 1-based line, when known.
        hint: the nearest valid key or what to do.
    """

    def __init__(self, file: str, key: str, wanted: str, got: str, *, line: int | None = None, hint: str = "") -> None:
        self.file, self.key, self.wanted, self.got, self.line, self.hint = file, key, wanted, got, line, hint
        where = f"{file}:{line}" if line else file
        super().__init__(f"{where}: {key}: wanted {wanted}, got {got}" + (f"; {hint}" if hint else ""))


class InputInvalid(UsageError):
    """A data file cannot be read as what its mapping or contract says."""

    def __init__(self, source: str, wanted: str, got: str, *, hint: str = "") -> None:
        self.source, self.wanted, self.got, self.hint = source, wanted, got, hint
        super().__init__(f"{source}: wanted {wanted}, got {got}" + (f"; {hint}" if hint else ""))


class UnknownName(UsageError):
    """A name that is not among the known ones; suggests the nearest."""

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        self.what, self.name, self.known = what, name, sorted(known)
        close = nearest(name, self.known)
        tail = f"did you mean {close!r}?" if close else f"known: {', '.join(self.known) or 'none'}"
        super().__init__(f"unknown {what} {name!r}; {tail}")


class TimeInvalid(UsageError):
    """A time without a zone, or one that contradicts another."""

    def __init__(self, what: str, got: str, wanted: str = "a time with a zone, like 2026-01-31T00:00:00Z") -> None:
        super().__init__(f"{what}: wanted {wanted}, got {got}")


class Unauthenticated(UsageError):
    """No key or token, or one that does not hold; `why` never repeats the secret."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"not authenticated: {why}")


class TargetRefused(UsageError):
    """An address that nothing may be sent to or fetched from; nothing was sent."""

    def __init__(self, target: str, why: str) -> None:
        self.target, self.why = target, why
        super().__init__(f"target {target} refused: {why}")


class CheckFailed(SeatrialError):
    """A check ran and said no."""

    exit_code = 1


class ArtifactRefused(CheckFailed):
    """A model's files are not what its manifest says, or hold something unsafe; nothing was loaded."""

    def __init__(self, artifact: str, why: str) -> None:
        self.artifact, self.why = artifact, why
        super().__init__(f"artifact {artifact} refused: {why}")


class LedgerBroken(CheckFailed):
    """The hash chain does not hold at the named row."""

    def __init__(self, model: str, revision: int, why: str) -> None:
        self.model, self.revision, self.why = model, revision, why
        super().__init__(f"ledger of {model} is broken at revision {revision}: {why}")


class Forbidden(CheckFailed):
    """Who asks is known and may not do this."""

    def __init__(self, who: str, what: str, needed: str) -> None:
        self.who, self.what, self.needed = who, what, needed
        super().__init__(f"{who} may not {what}: the role {needed} is needed")


class RowGuarantee(CheckFailed):
    """Rows out are not rows in."""

    def __init__(self, what: str, rows_in: int, rows_out: int) -> None:
        super().__init__(f"{what}: {rows_in} rows in, {rows_out} rows out or out of order; nothing was returned")


class NotEnoughData(CheckFailed):
    """Too few rows for an honest answer."""

    def __init__(self, what: str, wanted: int, got: int) -> None:
        self.wanted, self.got = wanted, got
        super().__init__(f"{what}: wanted at least {wanted} rows, got {got}")


class DependencyDown(SeatrialError):
    """A store or server that is needed does not answer."""

    exit_code = 3

    def __init__(self, dependency: str, why: str) -> None:
        self.dependency = dependency
        super().__init__(f"{dependency} is not available: {why}")


class Conflict(SeatrialError):
    """Somebody else was first."""

    exit_code = 4


class LedgerConflict(Conflict):
    """The expected revision is not the newest any more."""

    def __init__(self, model: str, expected: int, found: int) -> None:
        self.model, self.expected, self.found = model, expected, found
        super().__init__(f"ledger of {model}: expected revision {expected}, found {found}; read again and retry")


class RequestConflict(Conflict):
    """The same request id came before with another body."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        super().__init__(f"request id {request_id!r} was used before with another body; use a new id")
