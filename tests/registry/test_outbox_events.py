"""The event of a ledger row, and when a failed one is tried again."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest
from cloudevents.core.formats.json import JSONFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.canonical import canonical_json
from contracts.events_out import EventData
from contracts.rollout import RowKind
from registry.outbox import LONGEST_ASKED, LONGEST_WAIT, event_of, next_wait
from tests.registry.rig import MODEL, chain


def test_every_kind_of_row_becomes_a_valid_cloud_event_except_those_about_keys() -> None:
    """The CloudEvents package reads each event, its data fits the published schema, and keys stay inside."""
    for kind in RowKind:
        (row,) = chain((kind, "v3", {"outcome": "pass", "step": 1}))
        event = event_of(row)
        if kind in (RowKind.KEY_ISSUED, RowKind.KEY_REVOKED):
            assert event is None
            continue
        assert event is not None
        read = JSONFormat().read(None, canonical_json(event))
        assert (read.get_type(), read.get_subject()) == (f"org.seatrial.model.{kind.value}.v1", "v3")
        assert read.get_source() == f"seatrial:///models/{MODEL}"
        assert read.get_time() == row.at
        data = EventData.model_validate(event["data"])
        assert (data.revision, data.hash, data.facts["outcome"]) == (row.revision, row.hash, "pass")


def test_the_same_row_gives_the_same_event_and_another_row_another_id() -> None:
    """An id is tied to the row's content: written anew elsewhere with another reason it is another event."""
    first, second = chain((RowKind.HELD, "v1", {}), (RowKind.HELD, "v1", {}))
    (twin,) = chain((RowKind.HELD, "v1", {"note": "else"}))
    assert event_of(first) == event_of(first)
    ids = {str((event_of(row) or {})["id"]) for row in (first, second, twin)}
    assert len(ids) == 3
    assert all("." not in name for name in ids)


def test_an_event_without_a_version_has_no_subject() -> None:
    """CloudEvents forbids an empty subject; a policy change is about no version."""
    (row,) = chain((RowKind.POLICY_CHANGED, "", {"policy_hash": "p"}))
    event = event_of(row)
    assert event is not None
    assert "subject" not in event
    assert event["data"]["facts"] == {"policy_hash": "p"}


def test_only_named_facts_leave_and_a_long_payload_keeps_the_event_small() -> None:
    """A payload's secrets and its whole policy stay inside; 64 KB is never reached."""
    criteria = [{"name": f"c{i}", "words": "x" * 500} for i in range(400)]
    (row,) = chain(
        (RowKind.GATED, "v1", {"secret": "hush", "policy": {"a": 1}, "criteria": criteria, "outcome": "fail"})
    )
    event = event_of(row)
    assert event is not None
    text = canonical_json(event)
    assert len(text.encode()) < 64_000
    assert "hush" not in text
    assert event["data"]["facts"] == {"outcome": "fail"}


@given(st.integers(1, 200), st.integers(0, 2**32), st.floats(-10, 1e9))
@settings(deadline=None, max_examples=100)
def test_waits_double_up_to_a_limit_and_honour_the_receiver(attempts: int, seed: int, asked: float) -> None:
    """Each wait lies within 20% of the doubled one, or is what was asked for, up to a day."""
    plain = next_wait(attempts, random.Random(seed))
    middle = min(timedelta(seconds=30) * 2.0 ** min(attempts - 1, 30), LONGEST_WAIT)
    assert middle * 0.8 <= plain <= middle * 1.2
    waited = next_wait(attempts, random.Random(seed), asked)
    assert waited == max(plain, min(timedelta(seconds=max(0.0, asked)), LONGEST_ASKED))


@pytest.mark.parametrize("attempts", [1, 5])
def test_two_events_that_failed_together_do_not_come_back_together(attempts: int) -> None:
    """The chance spreads them."""
    chance = random.Random(7)
    assert len({next_wait(attempts, chance) for _ in range(20)}) == 20
