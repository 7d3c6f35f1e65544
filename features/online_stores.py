"""Which online store the settings name: the embedded one, or Redis; for our own calls and for Feast's."""

from __future__ import annotations

from typing import Any

from contracts.declarations import Declarations, join_keys
from contracts.errors import DependencyDown
from contracts.settings import Settings
from features.online import OnlineStore
from features.online_rows import OnlineFeatures


def open_online(settings: Settings, declarations: Declarations, *, durable: bool = True) -> OnlineFeatures:
    """The online store of a workspace.

    Args:
        settings: `online_url` names a Redis; empty is the embedded store in the workspace.
        declarations: names the project, and the join keys of each view.
        durable: False lets the last write be undone by a power failure, for throw-away workspaces.

    Raises:
        ConfigInvalid: an address that is none.
        DependencyDown: the folder cannot be written, or the Redis client is not installed.
    """
    if not settings.online_url:
        return OnlineStore(settings.online, durable=durable)
    try:
        from features.redis_online import RedisOnline
    except ImportError as error:
        raise DependencyDown("the Redis client", f"{error}; install seatrial[redis]") from None
    keys = {name: join_keys(view) for name, view in declarations.views.items()}
    return RedisOnline(settings.online_url, declarations.project, keys)


def feast_online(settings: Settings) -> dict[str, Any]:
    """`online_store:` of Feast's configuration for the same store."""
    clock = {"clock": settings.clock} if settings.clock else {}
    if settings.online_url:
        return {"type": "features.redis_online_store.RedisOnlineStore", "url": settings.online_url} | clock
    path = str(settings.online.absolute())
    return {"type": "features.embedded_online_store.EmbeddedOnlineStore", "path": path} | clock
