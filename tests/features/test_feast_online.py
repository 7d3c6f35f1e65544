"""Feast's own online calls on our stores: types of values and keys, ttl, pushes, materialisation, the same answers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from feast.data_source import PushMode
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus

from contracts.errors import InputInvalid, UnknownName
from tests.features.feast_shop import HOUR, NOW, VALUES, read_shelf, shelf_rows, shop_store
from tests.features.redis_server import redis_url

__all__ = ["redis_url"]


@pytest.fixture(params=["embedded", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """An applied repository on each of our stores, an hour after the rows' time."""
    return shop_store(tmp_path, online_config(request, tmp_path))


def online_config(request: pytest.FixtureRequest, folder: Path) -> dict[str, Any]:
    if request.param == "embedded":
        path = str(folder / "online")
        return {"type": "features.embedded_online_store.EmbeddedOnlineStore", "path": path, "clock": NOW.isoformat()}
    url = request.getfixturevalue("redis_url")
    from redis import Redis

    Redis.from_url(url).flushdb()
    return {"type": "features.redis_online_store.RedisOnlineStore", "url": url, "clock": NOW.isoformat()}


def statuses(response: Any) -> dict[str, list[int]]:
    names = list(response.proto.metadata.feature_names.val)
    return {name: list(vector.statuses) for name, vector in zip(names, response.proto.results, strict=True)}


def test_answers_are_those_of_feasts_own_store(store: Any, tmp_path: Path):
    """Values of every type, nulls, unknown items and a repeated item read as through Feast's SQLite store."""
    other = shop_store(tmp_path / "sqlite", {"type": "sqlite", "path": str(tmp_path / "o.db")}, engine=False)
    frame = shelf_rows(1, 2, 3)
    frame.loc[1, ["price", "label"]] = [np.nan, None]
    frame.loc[2, "stock"] = 0
    for written in (store, other):
        written.write_to_online_store("shelf", frame)
    for names in (tuple(VALUES), ("price",)):
        ours, theirs = (read_shelf(read, 3, 9, 2, 1, 3, names=names) for read in (store, other))
        before = ours.to_dict(include_event_timestamps=True)
        assert ours.proto is not None
        # from the columns, and from the message that was parsed since
        assert before == theirs.to_dict(include_event_timestamps=True) == ours.to_dict(include_event_timestamps=True)
    ours, theirs = (read_shelf(read, 3, 9, 2, 1, 3) for read in (store, other))
    pd.testing.assert_frame_equal(ours.to_df(), theirs.to_df())
    assert statuses(ours) == statuses(theirs)
    for mine, its in zip(ours.proto.results, theirs.proto.results, strict=True):
        assert list(mine.event_timestamps) == list(its.event_timestamps)


def test_materialised_rows_are_those_that_were_written(store: Any, tmp_path: Path):
    """Feast's materialize through Arrow gives what write_to_online_store gives, for every type."""
    frame = shelf_rows(*range(1, 40))
    frame.to_parquet(tmp_path / "gold" / "shelf.parquet")
    older = shelf_rows(1, event=NOW - 3 * HOUR, price=99.0)
    pd.concat([frame, older]).to_parquet(tmp_path / "gold" / "shelf.parquet")
    store.materialize(NOW - 9 * HOUR, NOW, feature_views=["shelf"])
    found = read_shelf(store, *range(1, 40)).to_dict()
    for name in VALUES:
        assert [np.float32(v) if name == "share" else v for v in found[name]] == list(frame[name]), name


def test_a_push_is_taken_once_and_an_older_one_not_at_all(store: Any):
    """`store.push` again changes nothing, and an older event never overwrites a newer one."""
    for frame in (shelf_rows(1), shelf_rows(1), shelf_rows(1, event=NOW - 2 * HOUR, price=77.0)):
        store.push("shelf_push", frame, to=PushMode.ONLINE)
    assert read_shelf(store, 1).to_dict()["price"] == [0.125]
    store.push("shelf_push", shelf_rows(1, event=NOW, price=5.0), to=PushMode.ONLINE)
    assert read_shelf(store, 1).to_dict()["price"] == [5.0]


def test_a_row_past_its_ttl_is_not_served_as_if_it_were_new(store: Any):
    """Its values are null, its status OUTSIDE_MAX_AGE, its event time is told; at the edge of the ttl it is present."""
    store.write_to_online_store("shelf", shelf_rows(1, event=NOW - 25 * HOUR))
    store.write_to_online_store("shelf", shelf_rows(2, event=NOW - 24 * HOUR))
    store.write_to_online_store("shelf", shelf_rows(3, event=NOW + HOUR))
    response = read_shelf(store, 1, 2, 3, names=("price", "label"))
    assert response.to_dict()["price"] == [None, 0.25, None]
    assert response.to_dict()["label"] == [None, "näme 2", None]
    wanted = [FieldStatus.OUTSIDE_MAX_AGE, FieldStatus.PRESENT, FieldStatus.NOT_FOUND]
    assert statuses(response)["label"] == wanted
    stamps = [stamp.seconds for stamp in response.proto.results[-1].event_timestamps]
    assert stamps == [int((NOW - 25 * HOUR).timestamp()), int((NOW - 24 * HOUR).timestamp()), 0]


def test_a_view_without_ttl_never_grows_stale(store: Any):
    """Keys of 32 bits, an old row, and the asynchronous reading."""
    stamp = pd.Timestamp(NOW - 9999 * HOUR).as_unit("us")
    row = pd.DataFrame({"lane": pd.array([7], dtype="Int32"), "late": [0.5], "event_time": stamp, "known_at": stamp})
    store.write_to_online_store("lane_rate", row)
    asked = {"features": ["lane_rate:late"], "entity_rows": [{"lane": 7}, {"lane": 8}]}
    assert store.get_online_features(**asked).to_dict()["late"] == [0.5, None]
    assert asyncio.run(store.get_online_features_async(**asked)).to_dict()["late"] == [0.5, None]
    assert store.get_online_features(**asked, full_feature_names=True).to_dict()["lane_rate__late"] == [0.5, None]


def test_reading_a_view_alone_gives_event_times(store: Any):
    """`online_read`, as Feast's other parts call it: rows in order, with what was asked for."""
    store.write_to_online_store("shelf", shelf_rows(1))
    view, provider = store.get_feature_view("shelf"), store._get_provider()
    from feast.infra.key_encoding_utils import EntityKeyProto
    from feast.protos.feast.types.Value_pb2 import Value

    keys = [
        EntityKeyProto(join_keys=["shop", "item"], entity_values=[Value(string_val="s"), Value(int64_val=item)])
        for item in (1, 2)
    ]
    found = provider.online_read(store.config, view, keys, ["stock"])
    assert found[0] == (NOW - HOUR, {"stock": Value(int64_val=1 - 2**40)})
    assert found[1] == (None, None)


def test_what_cannot_be_kept_is_refused(store: Any):
    """An infinite number and a null key are named, a join key that is not given too; nothing of such a write stays."""
    with pytest.raises(InputInvalid, match="price"):
        store.write_to_online_store("shelf", shelf_rows(1, price=np.inf))
    with pytest.raises(InputInvalid, match="join key"):
        store.write_to_online_store("shelf", shelf_rows(1).assign(shop=None))
    with pytest.raises(UnknownName, match="shop"):
        store.get_online_features(["shelf:price"], [{"item": 1}])
    assert read_shelf(store, 1).to_dict()["price"] == [None]


def test_dropping_a_view_takes_its_rows_away(store: Any):
    """After `apply` without the view and with it again, nothing of it is online; the other view's rows are."""
    stamp = pd.Timestamp(NOW).as_unit("us")
    row = pd.DataFrame({"lane": pd.array([7], dtype="Int32"), "late": [0.5], "event_time": stamp, "known_at": stamp})
    store.write_to_online_store("lane_rate", row)
    store.write_to_online_store("shelf", shelf_rows(1))
    view = store.get_feature_view("shelf")
    store.apply([], objects_to_delete=[view], partial=False)
    store.apply([view])
    assert read_shelf(store, 1).to_dict()["price"] == [None]
    assert store.get_online_features(["lane_rate:late"], [{"lane": 7}]).to_dict()["late"] == [0.5]
