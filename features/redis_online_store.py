"""Feast's online interface to our guard over Redis, in the layout that Feast's own Redis store reads and writes."""

from __future__ import annotations

from typing import Any, Literal

from feast.repo_config import FeastConfigBaseModel

from features.embedded_online_store import GuardedOnlineStore
from features.online_rows import OnlineFeatures
from features.redis_online import RedisOnline


class RedisOnlineStoreConfig(FeastConfigBaseModel):
    """`online_store:` of feature_store.yaml. `url`: redis://, rediss:// or unix://; `clock`: a fixed "now", for
    rehearsals."""

    type: Literal["features.redis_online_store.RedisOnlineStore"] = "features.redis_online_store.RedisOnlineStore"
    url: str
    clock: str = ""


class RedisOnlineStore(GuardedOnlineStore):
    """Feast's calls on `features.redis_online.RedisOnline`."""

    def _made(self, config: Any) -> OnlineFeatures:
        return RedisOnline(config.online_store.url, config.project, {})

    def _forget(self, config: Any, table: Any) -> None:
        store = RedisOnline(config.online_store.url, config.project, {table.name: table.join_keys})
        store.forget(table.name)
        store.close()
