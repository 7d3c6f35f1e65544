"""Redis as the online store: Feast's own client on the same data, and what happens when the server is not there."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts.declarations import join_keys, load_declarations, view_columns
from contracts.errors import ConfigInvalid, DependencyDown, UnknownName
from contracts.settings import Settings
from features.feast_store import FeatureRepo, _repo_config
from features.online import OnlineStore
from features.online_rows import Mark
from features.online_stores import open_online
from tests.features.feast_shop import HOUR, NOW, VALUES, read_shelf, shelf_rows, shop_store
from tests.features.redis_server import free_port, redis_server, redis_url

__all__ = ["redis_url"]
REPO = Path(__file__).parents[2] / "features" / "repo"


@pytest.fixture
def both(tmp_path: Path, redis_url: str) -> tuple[Any, Any]:
    """Our Redis store and Feast's own, in one database."""
    from redis import Redis

    Redis.from_url(redis_url).flushdb()
    ours = {"type": "features.redis_online_store.RedisOnlineStore", "url": redis_url, "clock": NOW.isoformat()}
    theirs = {"type": "redis", "connection_string": redis_url.removeprefix("redis://").removesuffix("/0")}
    return shop_store(tmp_path / "a", ours), shop_store(tmp_path / "b", theirs, engine=False)


def test_feasts_own_client_reads_what_we_write(both: tuple[Any, Any]):
    """Every type of value, composite keys and 32-bit keys, nulls among them, with the same event times."""
    ours, theirs = both
    frame = shelf_rows(1, 2)
    frame.loc[1, ["price", "label"]] = [np.nan, None]
    ours.write_to_online_store("shelf", frame)
    stamp = pd.Timestamp(NOW).as_unit("us")
    row = pd.DataFrame({"lane": pd.array([7], dtype="Int32"), "late": [0.5], "event_time": stamp, "known_at": stamp})
    ours.write_to_online_store("lane_rate", row)
    mine, its = (read_shelf(store, 2, 1) for store in both)
    assert mine.to_dict() == its.to_dict()
    assert list(mine.proto.results[-1].event_timestamps) == list(its.proto.results[-1].event_timestamps)
    assert theirs.get_online_features(["lane_rate:late"], [{"lane": 7}]).to_dict()["late"] == [0.5]


def test_we_read_what_feasts_own_client_wrote_and_guard_it(both: tuple[Any, Any]):
    """A row of Feast's own counts as known when it happened; older rows of ours do not replace it, newer ones do."""
    ours, theirs = both
    theirs.write_to_online_store("shelf", shelf_rows(1, price=1.0))
    assert read_shelf(ours, 1).to_dict() == read_shelf(theirs, 1).to_dict()
    ours.write_to_online_store("shelf", shelf_rows(1, event=NOW - 2 * HOUR, price=2.0))
    assert read_shelf(ours, 1).to_dict()["price"] == [1.0]
    ours.write_to_online_store("shelf", shelf_rows(1, event=NOW - HOUR / 2, price=3.0))
    theirs.write_to_online_store("shelf", shelf_rows(1, event=NOW - HOUR / 4, price=4.0))
    ours.write_to_online_store("shelf", shelf_rows(1, event=NOW - HOUR / 3, price=5.0))
    assert [read_shelf(store, 1).to_dict()["price"] for store in both] == [[4.0], [4.0]]


def test_feasts_own_client_forgets_a_view_of_ours(both: tuple[Any, Any]):
    """After Feast's own store dropped the view, an older row may be written again."""
    ours, theirs = both
    ours.write_to_online_store("shelf", shelf_rows(1, price=1.0))
    theirs.apply([], objects_to_delete=[theirs.get_feature_view("shelf")], partial=False)
    assert read_shelf(ours, 1, names=tuple(VALUES)).to_dict()["price"] == [None]
    ours.write_to_online_store("shelf", shelf_rows(1, event=NOW - 2 * HOUR, price=2.0))
    assert read_shelf(ours, 1).to_dict()["price"] == [2.0]


def test_settings_choose_the_store_for_serving_and_for_feast(redis_url: str, tmp_path: Path):
    """With an address both go to Redis, without one to the folder; what one writes the other reads."""
    declared = load_declarations(REPO)
    plain = Settings(home=tmp_path / "plain")
    assert isinstance(open_online(plain, declared), OnlineStore)
    settings = Settings(home=tmp_path, online_url=redis_url, clock=NOW.isoformat())
    assert _repo_config(settings, "p")["online_store"]["type"].endswith("redis_online_store.RedisOnlineStore")
    repo = FeatureRepo(settings, declared)
    repo.apply()
    view = declared.views["carrier_rates"]
    stamp = pd.Timestamp(NOW).as_unit("us")
    frame = pd.DataFrame({"carrier": ["UA"], "event_time": stamp, "known_at": stamp})
    frame = frame.assign(**dict.fromkeys(view_columns(view), 1.5))
    repo.feast.write_to_online_store("carrier_rates", frame)
    read = open_online(settings, declared).read("carrier_rates", ("n_1",), ("UA",), NOW, view.ttl)
    assert (read.status, read.values, join_keys(view)) == ("present", {"n_1": 1.5}, ("carrier",))
    assert not (tmp_path / "online").exists()


def test_a_server_that_is_not_there_is_said_to_be_down(tmp_path: Path):
    """Reading, writing and marks name the server, not its password; a view without known keys and no address too."""
    declared = load_declarations(REPO)
    at = f"127.0.0.1:{free_port()}"
    store = open_online(Settings(online_url=f"redis://user:secret@{at}/0"), declared)
    for call in (
        lambda: store.read("carrier_rates", ("n_1",), ("UA",), NOW, timedelta(0)),
        lambda: store.mark("carrier_rates"),
        lambda: store.write_views({}, {"carrier_rates": Mark(NOW)}),
    ):
        with pytest.raises(DependencyDown, match=at) as refused:
            call()
        assert "secret" not in str(refused.value)
    with pytest.raises(UnknownName, match="carrier_rates"):
        store.newest("carrier_rate", (), ("UA",))
    with pytest.raises(ConfigInvalid, match="redis://"):
        open_online(Settings(online_url="http://nowhere"), declared)


def test_a_server_that_stands_still_does_not_hold_a_decision_for_ever(tmp_path: Path):
    """A stopped server is down after the timeout; when it goes on, so do we, with the same store."""
    with redis_server(tmp_path) as (url, pid):
        store = open_online(Settings(online_url=f"{url}?socket_timeout=0.2"), load_declarations(REPO))
        assert store.read("carrier_rates", ("n_1",), ("UA",), NOW, timedelta(0)).status == "missing"
        os.kill(pid, signal.SIGSTOP)
        try:
            begun = time.monotonic()
            with pytest.raises(DependencyDown):
                store.read("carrier_rates", ("n_1",), ("UA",), NOW, timedelta(0))
            waited = time.monotonic() - begun
        finally:
            os.kill(pid, signal.SIGCONT)
        # not the speed of anything: a bound that a hang would break
        assert waited < 30
        assert store.read("carrier_rates", ("n_1",), ("UA",), NOW, timedelta(0)).status == "missing"


def test_a_restarted_server_is_filled_again(tmp_path: Path):
    """The same store works after the server came back empty: its script is loaded again, and its mark is gone."""
    declared, port = load_declarations(REPO), free_port()
    stamp = pd.Timestamp(NOW).as_unit("us")
    frame = pd.DataFrame({"carrier": ["UA"], "event_time": stamp, "known_at": stamp, "n_1": 1.0})
    with redis_server(tmp_path, port) as (url, _):
        store = open_online(Settings(online_url=url), declared)
        assert store.write("carrier_rates", ("carrier",), frame) == 1
    with pytest.raises(DependencyDown):
        store.write("carrier_rates", ("carrier",), frame)
    with redis_server(tmp_path, port):
        assert store.mark("carrier_rates") is None
        assert store.write("carrier_rates", ("carrier",), frame) == 1
