"""Routing: sticky, fair, and stable when the share grows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serving.routing import bucket, canary_key, route


def routed(key, share=0.1, salt="s", segments=None, key_name="lane", **fields):
    origin, _, destination = key.partition(">")
    return route(
        champion="v1",
        challenger="v2",
        share=share,
        salt=salt,
        key_name=key_name,
        segments=segments or {},
        fields={"origin": origin, "destination": destination, **fields},
        revision=3,
    )


@given(st.text(max_size=40), st.text(max_size=80))
def test_bucket_is_one_place_for_one_key(salt, key):
    """Any salt and key, also empty, long or with lone surrogates, give one place in [0, 1)."""
    assert bucket(salt, key) == bucket(salt, key)
    assert 0 <= bucket(salt, key) < 1


def test_f22_split_is_sticky_and_within_one_point_of_the_share():
    """Over 100,000 keys a 10% canary gets 10% within one point, and every key the same arm on a second look."""
    keys = [f"O{number % 317}>D{number}" for number in range(100_000)]
    first = [routed(key).arm for key in keys]
    assert abs(first.count("canary") / len(keys) - 0.10) < 0.01
    assert first == [routed(key).arm for key in keys]


def test_raising_the_share_keeps_every_key_that_was_in():
    """Keys of the 10% canary stay in it at 25% and at 50%."""
    keys = [f"O{number}>D" for number in range(5_000)]
    canaries = [{key for key in keys if routed(key, share).arm == "canary"} for share in (0.1, 0.25, 0.5)]
    assert canaries[0] < canaries[1] < canaries[2]


def test_another_salt_draws_anew():
    """A new rollout's canary is not the old one's: the overlap is what chance gives."""
    keys = [f"O{number}>D" for number in range(20_000)]
    one, two = ({key for key in keys if routed(key, 0.1, salt).arm == "canary"} for salt in ("a", "b"))
    assert abs(len(one & two) / len(one) - 0.1) < 0.02


def test_segments_keep_others_out():
    """Only listed values of a segment field may be answered by the canary; a missing field is outside."""
    inside = routed("A>B", 1.0, segments={"mode": ["Truck"]}, mode="Truck")
    outside = routed("A>B", 1.0, segments={"mode": ["Truck"]}, mode="Air")
    unknown = routed("A>B", 1.0, segments={"mode": ["Truck"]})
    assert [one.arm for one in (inside, outside, unknown)] == ["canary", "champion", "champion"]
    assert "mode" in outside.reason


def test_no_champion_no_canary_and_missing_key():
    """Without a champion nobody is routed to; without the key's field the champion answers, and both say why."""
    nobody = route(
        champion=None, challenger="v2", share=1.0, salt="", key_name="lane", segments={}, fields={}, revision=0
    )
    assert (nobody.arm, nobody.version) == ("none", None)
    keyless = routed("A>B", 1.0, key_name="supplier")
    assert (keyless.arm, keyless.reason) == ("champion", "the request has no supplier")
    assert canary_key("sku_location", {"sku": "milk", "location": "north"}) == "milk|north"
