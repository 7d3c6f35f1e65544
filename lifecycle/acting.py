"""Who acts at the command line: the local admin while access is open, else whom SEATRIAL_KEY stands for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from contracts.errors import DependencyDown, Unauthenticated
from contracts.settings import Settings
from contracts.times import SystemClock
from registry.access import ACCESS_CHAIN, AccessList, Principal, fold_access, local

_HOW = "set SEATRIAL_KEY to an API key (seatrial access issue) or to a token of the issuer"


def who_acts(settings: Settings) -> Principal:
    """The principal of this command.

    While access is required, SEATRIAL_ACTOR has no say: the key or token names who acts.

    Raises:
        Unauthenticated: no key or token, or one that does not hold.
        DependencyDown: the issuer's keys, or ledger and access list both, are not to be had.
    """
    if settings.access == "open":
        return local(settings.actor)
    credential = settings.key.get_secret_value()
    if not credential:
        raise Unauthenticated(f"access is required here; {_HOW}")
    from serving.authenticate import authenticator_from

    try:
        return authenticator_from(settings, keys=partial(known_keys, settings)).principal(credential)
    except Unauthenticated as error:
        raise Unauthenticated(f"{error.why}; {_HOW}") from None


def first_of_all(settings: Settings) -> Principal | None:
    """Whoever is at this machine while access is required and no key was ever issued; None once there is one."""
    if settings.access == "required" and not known_keys(settings).keys:
        return local(settings.actor)
    return None


def known_keys(settings: Settings) -> AccessList:
    """Every key, from the ledger; from the workspace's file while the ledger does not answer.

    Raises:
        DependencyDown: neither can be read.
    """
    from registry.access_file import AccessFile
    from registry.sql_ledger import SqlLedger

    if not settings.ledger_url and not settings.home.exists():
        return AccessList()
    ledger = SqlLedger(settings.ledger)
    try:
        return fold_access(ledger.rows(ACCESS_CHAIN))
    except DependencyDown:
        return AccessFile(settings.access_file).current()
    finally:
        ledger.close()


@contextmanager
def acting_as(who: Principal) -> Iterator[None]:
    """While it lasts, everything that this process and its children write names `who`."""
    before = os.environ.get("SEATRIAL_ACTOR")
    os.environ["SEATRIAL_ACTOR"] = who.name
    try:
        yield
    finally:
        if before is None:
            del os.environ["SEATRIAL_ACTOR"]
        else:
            os.environ["SEATRIAL_ACTOR"] = before


def clock() -> SystemClock:
    """The clock of access: the machine's, also where SEATRIAL_CLOCK stands still for a rehearsal."""
    return SystemClock()
