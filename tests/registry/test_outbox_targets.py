"""Targets other than webhooks: a file that survives crashes, a Kafka topic, and the events.yaml that names them."""

from __future__ import annotations

import json
import os
import resource
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_kafka_event

from contracts.canonical import canonical_json
from contracts.errors import ConfigInvalid, TargetRefused, UsageError
from contracts.events_out import EventsOut, FileTarget, KafkaTarget, WebhookTarget
from contracts.rollout import RowKind
from contracts.yaml_file import load_strict
from registry.event_file import EventFile
from registry.event_targets import sender_of
from registry.kafka_out import KafkaTopic
from registry.outbox import event_of
from registry.webhook import Webhook
from tests.registry.rig import MODEL, START, chain

EVENTS = [event_of(row) or {} for row in chain(*[(RowKind.HELD, f"v{n}", {}) for n in range(1, 9)])]
SECRET = "whsec_" + "b2xkLXNlY3JldC1vZi10d2VudHktZm91cg=="


def ids(path: Path) -> list[str]:
    """Ids in a file of events; every line must be one."""
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


def test_events_are_lines_of_a_file_each_once(tmp_path: Path) -> None:
    """Also when sent twice, by another sender too."""
    path = tmp_path / "out" / "events.jsonl"
    first, second = EventFile(path), EventFile(path)
    for event in EVENTS[:3]:
        for sender in (first, second, first):
            assert sender.send(event, START).ok
    assert EventFile(path).send(EVENTS[0], START).ok
    assert path.read_text() == "".join(canonical_json(event) + "\n" for event in EVENTS[:3])


def test_half_a_line_left_by_a_crash_is_cut_off_and_the_event_written_anew(tmp_path: Path) -> None:
    """At every byte at which the writing could have ended."""
    path = tmp_path / "events.jsonl"
    whole = canonical_json(EVENTS[0]).encode() + b"\n"
    torn = canonical_json(EVENTS[1]).encode() + b"\n"
    for cut in range(2, len(torn), 7):
        path.write_bytes(whole + torn[:cut])
        sender = EventFile(path)
        assert sender.send(EVENTS[1], START).ok
        assert sender.send(EVENTS[0], START).ok
        assert path.read_bytes() == whole + torn


def test_a_full_disk_is_a_failure_and_leaves_no_broken_file(tmp_path: Path) -> None:
    """The system lets only some bytes be written; with room again the event is there once, whole."""
    path = tmp_path / "events.jsonl"
    sender = EventFile(path)
    assert sender.send(EVENTS[0], START).ok
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, limits[1]))
    try:
        sent = sender.send(EVENTS[1], START)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (sent.ok, sent.refused) == (False, False)
    assert "too large" in sent.words
    assert sender.send(EVENTS[1], START).ok
    assert ids(path) == [EVENTS[0]["id"], EVENTS[1]["id"]]


def test_several_writers_of_one_file_do_not_mix_their_lines(tmp_path: Path) -> None:
    """Every event once, every line whole."""
    path = tmp_path / "events.jsonl"

    def write() -> None:
        sender = EventFile(path)
        for event in EVENTS:
            assert sender.send(event, START).ok

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ids(path)) == sorted(event["id"] for event in EVENTS)


def test_a_file_that_was_rotated_is_begun_anew(tmp_path: Path) -> None:
    """What stood in the old file is forgotten."""
    path = tmp_path / "events.jsonl"
    sender = EventFile(path)
    sender.send(EVENTS[0], START)
    path.rename(tmp_path / "events.1.jsonl")
    assert sender.send(EVENTS[1], START).ok
    assert sender.send(EVENTS[2], START).ok
    assert ids(path) == [EVENTS[1]["id"], EVENTS[2]["id"]]


@pytest.mark.parametrize("what", ["text", "link", "folder", "device", "one line"])
def test_somebody_elses_file_is_left_alone(tmp_path: Path, what: str) -> None:
    """A text, with or without an end of line, a link, a folder, a device."""
    path, other = tmp_path / "events.jsonl", tmp_path / "notes.txt"
    other.write_text("my notes\n")
    if what in ("text", "one line"):
        path.write_text("my notes" + ("\nmore" if what == "text" else ""))
    elif what == "link":
        path.symlink_to(other)
    elif what == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    with pytest.raises(TargetRefused):
        EventFile(path)
    assert other.read_text() == "my notes\n"


@pytest.fixture(scope="module")
def broker() -> Any:
    """librdkafka's own mock cluster, over real sockets; its address."""
    kafka = pytest.importorskip("confluent_kafka", reason="needs the extra seatrial[kafka]")
    cluster = kafka.Producer({"bootstrap.servers": "none:1", "test.mock.num.brokers": 1, "log_level": 0})
    brokers = cluster.list_topics(timeout=10).brokers.values()
    yield ",".join(f"{found.host}:{found.port}" for found in brokers)
    cluster.flush(1)


def _consumed(broker: str, topic: str, wanted: int) -> list[Any]:
    """Messages of a topic from its beginning."""
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": broker, "group.id": "erp", "log_level": 0})
    parts = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, part, OFFSET_BEGINNING) for part in parts])
    found, deadline = list[Any](), time.monotonic() + 60
    while len(found) < wanted and time.monotonic() < deadline:
        message = consumer.poll(0.2)
        if message is not None and message.error() is None:
            found.append(message)
    consumer.close()
    return found


@pytest.mark.parametrize("mode", ["structured", "binary"])
def test_what_a_kafka_consumer_reads_is_the_event(broker: str, mode: Any) -> None:
    """In order, keyed by model, readable by the CloudEvents package in either mode."""
    sender = KafkaTopic(broker, f"models-{mode}", mode=mode)
    assert [sender.send(event, START).ok for event in EVENTS[:3]] == [True] * 3
    sender.close()
    found = _consumed(broker, f"models-{mode}", 3)
    assert [message.key() for message in found] == [MODEL.encode()] * 3
    for message, event in zip(found, EVENTS, strict=False):
        headers = dict(message.headers() or [])
        read = from_kafka_event(KafkaMessage(headers=headers, key=message.key(), value=message.value()))
        assert (read.get_id(), read.get_type(), read.get_data()) == (event["id"], event["type"], event["data"])


def test_a_broker_that_does_not_answer_is_a_failure_that_can_be_repeated() -> None:
    """Within the attempt's time."""
    sender = KafkaTopic("127.0.0.1:1", "models", timeout_s=0.5)
    sent = sender.send(EVENTS[0], START)
    assert (sent.ok, sent.refused) == (False, False)
    assert "models" in sent.words


def test_a_setting_that_kafka_does_not_know_is_named() -> None:
    """When the target is made."""
    with pytest.raises(UsageError, match="models"):
        KafkaTopic("127.0.0.1:1", "models", properties={"no.such.setting": "1"})


GOOD = """
targets:
  - {name: erp, kind: webhook, url: "https://erp.example.org/hook", secret_env: ERP_SECRET, types: ["*.promoted.v1"]}
  - {name: lake, kind: file, path: events.jsonl, since: 2026-01-31}
  - {name: bus, kind: kafka, bootstrap: "127.0.0.1:1", topic: models, secret_env: {sasl.password: BUS_PASSWORD}}
"""


def test_a_file_of_targets_is_read_and_each_gets_its_sender(tmp_path: Path) -> None:
    """Secrets come from the variables that the file names."""
    file = tmp_path / "events.yaml"
    file.write_text(GOOD)
    webhook, lake, bus = load_strict(file, EventsOut).targets
    assert isinstance(webhook, WebhookTarget)
    assert webhook.secret_env == ("ERP_SECRET",)
    assert isinstance(lake, FileTarget)
    assert lake.since == "2026-01-31T00:00:00.000000Z"
    assert isinstance(bus, KafkaTarget)
    assert isinstance(sender_of(webhook, {"ERP_SECRET": SECRET}), Webhook)
    assert isinstance(sender_of(bus, {"BUS_PASSWORD": "hush"}), KafkaTopic)
    for target, name in ((webhook, "ERP_SECRET"), (bus, "BUS_PASSWORD")):
        with pytest.raises(ConfigInvalid, match=name):
            sender_of(target, {name: ""})


@pytest.mark.parametrize(
    ("entry", "names"),
    [
        ("{name: erp, kind: webhook, url: 'https://a.org/', secret_env: S, secret: x}", "secret"),
        ("{name: erp, kind: webhook, url: 'https://a.org/'}", "secret_env"),
        ("{name: erp, kind: carrier_pigeon}", "carrier_pigeon"),
        ("{name: '../erp', kind: file, path: x}", "name"),
        ("{name: erp, kind: file, path: x, since: 2026-01-31T00:00:00}", "quotation"),
        ("{name: erp, kind: file, path: x, max_attempts: 0}", "max_attempts"),
        ("{name: erp, kind: file, path: x, types: []}", "types"),
        ("{name: erp, kind: kafka, bootstrap: b, topic: t, properties: {sasl.password: hush}}", "secret_env"),
        ("{name: erp, kind: kafka, bootstrap: b, topic: 'a b'}", "topic"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, entry: str, names: str) -> None:
    """With the key that breaks the schema."""
    file = tmp_path / "events.yaml"
    file.write_text(f"targets:\n  - {entry}\n")
    with pytest.raises(ConfigInvalid, match=names):
        load_strict(file, EventsOut)


def test_two_targets_of_one_name_are_refused(tmp_path: Path) -> None:
    """They would share what was delivered."""
    file = tmp_path / "events.yaml"
    file.write_text("targets: [{name: a, kind: file, path: x}, {name: a, kind: file, path: y}]\n")
    with pytest.raises(ConfigInvalid, match="twice"):
        load_strict(file, EventsOut)
