"""Who asks: an API key held against the workspace's access list, or a token of the issuer that the settings name."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

from contracts.environments import resolved
from contracts.errors import ConfigInvalid, Unauthenticated
from contracts.settings import Settings
from contracts.times import Clock, SystemClock
from registry.access import AccessList, Principal, check_key
from registry.access_file import AccessFile
from serving.jwks import KeyAddress, KeyFile
from serving.jwt_tokens import KeySource, Tokens, read_keys

KEY_START = "st_"


class Authenticator:
    """Says who asks, or refuses with a reason that is for the log alone.

    Args:
        keys: gives the access list as it is now.
        tokens: checks tokens; None takes keys only.
        clock: the machine's, also beside a rehearsal.
    """

    def __init__(self, keys: Callable[[], AccessList], tokens: Tokens | None, clock: Clock) -> None:
        self._keys, self._tokens, self._clock = keys, tokens, clock

    def quick(self, credential: str) -> bool:
        """Whether the answer comes without reading or fetching an issuer's keys."""
        if credential.startswith(KEY_START) or self._tokens is None:
            return True
        return self._tokens.remembered(credential) is not None

    def principal(self, credential: str) -> Principal:
        """Whom a key or token stands for.

        Raises:
            Unauthenticated: nobody, or not any more.
            DependencyDown: the access list or the issuer's keys are not to be had.
        """
        if not credential.startswith(KEY_START) and credential.count(".") == 2:
            if self._tokens is None:
                raise Unauthenticated("a token, and no issuer is named in the settings")
            return self._tokens.principal(credential)
        checked = check_key(self._keys(), credential, self._clock.now())
        if checked.principal is None:
            named = f"key {checked.prefix}: " if checked.prefix else "credential: "
            raise Unauthenticated(named + checked.why)
        return checked.principal


def authenticator_from(
    settings: Settings, *, keys: Callable[[], AccessList] | None = None, clock: Clock | None = None
) -> Authenticator:
    """The authenticator of a workspace.

    Args:
        settings: where the access list is, and whose tokens are taken.
        keys: gives the access list; the workspace's file when not given.
        clock: the machine's when not given; a rehearsal's fixed time would bring expired keys back to life.

    Raises:
        ConfigInvalid: an issuer, an audience and its keys' place belong together.
        TargetRefused: the place of the issuer's keys is no https address.
    """
    told = clock or SystemClock()
    return Authenticator(keys or AccessFile(settings.access_file).current, _tokens(settings, told), told)


@cache
def access_of_environment() -> Authenticator | None:
    """The authenticator that SEATRIAL_* asks for, None while access is open; made once a process."""
    settings = resolved(Settings())
    return authenticator_from(settings) if settings.access == "required" else None


def _tokens(settings: Settings, clock: Clock) -> Tokens | None:
    parts = {"jwt_issuer": settings.jwt_issuer, "jwt_audience": settings.jwt_audience, "jwks": settings.jwks}
    if not any(parts.values()):
        return None
    for name, value in parts.items():
        if not value:
            raise ConfigInvalid("settings", f"SEATRIAL_{name.upper()}", "a value: the three belong together", "nothing")
    keys: KeySource
    if "://" in settings.jwks:
        keys = KeyAddress(settings.jwks, read_keys, clock, settings.home / "jwks.json")
    else:
        keys = KeyFile(Path(settings.jwks), read_keys, clock)
    return Tokens(settings.jwt_issuer, settings.jwt_audience, keys, clock)
