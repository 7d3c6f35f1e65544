"""The public keys of a token issuer (JWK set, RFC 7517), from a file or over https, cached with their age."""

from __future__ import annotations

import ipaddress
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from contracts.errors import DependencyDown, InputInvalid, TargetRefused, TimeInvalid
from contracts.times import Clock, iso, parse_time
from registry.access_file import LOOK_EVERY_S
from registry.durable import only_one, replace_file

MAX_BYTES = 256 * 1024
MAX_KEYS = 64
FETCH_S = 5.0
FRESH_FOR = timedelta(minutes=10)
MAX_AGE = timedelta(hours=6)
REFETCH_AFTER = timedelta(seconds=30)

KeyReader = Callable[[bytes], Mapping[str, Any]]


@dataclass(frozen=True)
class KeySet:
    """An issuer's keys by key id, as of when they were fetched; `number` rises whenever they changed."""

    keys: Mapping[str, Any]
    fetched_at: datetime
    number: int


class KeyFile:
    """Keys in a file that somebody else keeps up to date; read again when it changes.

    Args:
        path: of the JWK set.
        read: makes keys of its bytes; raises InputInvalid.
        clock: where "now" comes from.
        every_s: look at the file at most so often.
    """

    def __init__(self, path: Path, read: KeyReader, clock: Clock, every_s: float = LOOK_EVERY_S) -> None:
        self._path, self._read, self._clock, self._every_s = path, read, clock, every_s
        self._mark: tuple[int, int] | None = None
        self._set: KeySet | None = None
        self._looked, self._number = 0.0, 0

    def current(self) -> KeySet | None:
        """The keys as the file had them at the last look, None before they were read or after it changed."""
        now = time.monotonic()
        if self._set is not None and now - self._looked >= self._every_s:
            self._set = self._set if self._mark == self._stat() else None
            self._looked = now
        return self._set

    def lookup(self, kid: str) -> KeySet:
        """The keys for a token of this key id.

        Raises:
            DependencyDown: the file is not there or is no JWK set.
        """
        found = self.current()
        if found is None:
            mark = self._stat()
            try:
                keys = self._read(self._path.read_bytes()[: MAX_BYTES + 1])
            except (OSError, InputInvalid) as error:
                raise DependencyDown("the issuer's keys", str(error)) from None
            self._number += 1
            found = KeySet(keys, self._clock.now(), self._number)
            self._set, self._mark, self._looked = found, mark, time.monotonic()
        return found

    def _stat(self) -> tuple[int, int] | None:
        try:
            state = self._path.stat()
        except OSError:
            return None
        return state.st_mtime_ns, state.st_size


class KeyAddress:
    """Keys behind an https address: fetched when needed, kept in memory and on disk with the time of fetching.

    Within FRESH_FOR nothing is fetched, but for an unknown key id, and then at most every REFETCH_AFTER. While the
    issuer does not answer, the keys fetched last hold until MAX_AGE; then nobody comes in. A fetch follows no redirect
    and reads at most MAX_BYTES.

    Args:
        url: where the JWK set is.
        read: makes keys of its bytes; raises InputInvalid.
        clock: where "now" comes from.
        cache: file that the next process starts from.
        loopback_http: for tests: also http on loopback.

    Raises:
        TargetRefused: not an https address.
    """

    def __init__(self, url: str, read: KeyReader, clock: Clock, cache: Path, *, loopback_http: bool = False) -> None:
        _must_be_safe(url, loopback_http)
        self._url, self._read, self._clock, self._cache = url, read, clock, cache
        self._set: KeySet | None = None
        self._tried: datetime | None = None
        self._lock, self._fetching = threading.Lock(), threading.Lock()

    def current(self) -> KeySet | None:
        """The keys while they are fresh, None when a look at the issuer is due."""
        found = self._set
        return found if found is not None and _age(found, self._clock.now()) <= FRESH_FOR else None

    def lookup(self, kid: str) -> KeySet:
        """The keys for a token of this key id, fetched when they are due.

        Raises:
            DependencyDown: there are none that are young enough.
        """
        now = self._clock.now()
        with self._lock:
            if self._set is None:
                self._set = self._from_cache()
            found = self._set
            due = found is None or _age(found, now) > FRESH_FOR or kid not in found.keys
            mine = due and (self._tried is None or not timedelta(0) <= now - self._tried < REFETCH_AFTER)
            if mine:
                self._tried = now
        if mine or found is None or _age(found, now) > MAX_AGE:
            with self._fetching:  # whoever has usable keys does not wait for somebody else's fetch
                found = self._fetched(now) if mine else self._set
        if found is None or _age(found, now) > MAX_AGE:
            raise DependencyDown("the issuer's keys", f"{self._url} does not answer and no keys are young enough")
        return found

    def _fetched(self, now: datetime) -> KeySet | None:
        """The keys after a fetch; those before it when it fails."""
        before = self._set
        try:
            content = fetch(self._url)
            keys = self._read(content)
        except (DependencyDown, InputInvalid):
            return before
        self._set = KeySet(keys, now, before.number + 1 if before else 1)
        kept = {"url": self._url, "fetched_at": iso(now), "content": content.decode("utf-8", "replace")}
        with only_one(self._cache.with_name(f".{self._cache.name}.lock")):
            replace_file(self._cache, json.dumps(kept).encode())
        return self._set

    def _from_cache(self) -> KeySet | None:
        try:
            kept = json.loads(self._cache.read_bytes())
            if kept["url"] != self._url:
                return None
            return KeySet(self._read(kept["content"].encode()), parse_time(kept["fetched_at"], "fetched_at"), 1)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, InputInvalid, TimeInvalid):
            return None


def fetch(url: str) -> bytes:
    """What is at an address, without redirects, in bounded time and size.

    Raises:
        DependencyDown: no answer, an answer other than 200, too large, or too slow.
    """
    deadline = time.monotonic() + FETCH_S
    try:
        with requests.get(url, timeout=FETCH_S, allow_redirects=False, stream=True) as answer:
            if answer.status_code != 200:
                raise DependencyDown("the issuer's keys", f"{url} answered {answer.status_code}")
            content = b""
            for part in answer.iter_content(8192):
                content += part
                if len(content) > MAX_BYTES or time.monotonic() > deadline:
                    raise DependencyDown("the issuer's keys", f"{url} gave too much or was too slow")
            return content
    except requests.RequestException as error:
        raise DependencyDown("the issuer's keys", f"{url}: {type(error).__name__}") from None


def _age(found: KeySet, now: datetime) -> timedelta:
    """How old keys are; fetched in the future (a clock that was put back) means older than any limit."""
    age = now - found.fetched_at
    return age if age >= timedelta(0) else timedelta.max


def _must_be_safe(url: str, loopback_http: bool) -> None:
    parts = urlsplit(url)
    if not parts.hostname or parts.username or parts.password:
        raise TargetRefused(parts.hostname or "(no host)", "wanted https://host/path without user or password")
    if parts.scheme == "https" or (parts.scheme == "http" and loopback_http and is_loopback(parts.hostname)):
        return
    raise TargetRefused(url, "the issuer's keys may only come over https")


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine's own loopback.

    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "example.org")]
    [True, True, True, False, False]
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
