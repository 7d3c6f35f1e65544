"""Events into a Kafka topic (the extra seatrial[kafka]): keyed by model, acknowledged by every replica in sync."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from contracts.canonical import canonical_json
from contracts.errors import UsageError
from registry.outbox import Sent


class KafkaTopic:
    """Produces events one by one and waits for each to be acknowledged.

    CloudEvents Kafka binding: structured mode puts the whole event into the value; binary mode its attributes into
    `ce_` headers and its data into the value. librdkafka's idempotent producer keeps its own retries from doubling
    or reordering; an attempt after a crash is still a second message with the same id.

    Args:
        bootstrap: host:port, several separated by commas.
        topic: its name.
        mode: see above.
        properties: further librdkafka settings, secrets included.
        timeout_s: for one attempt.

    Raises:
        UsageError: the extra is not installed, or librdkafka does not take a setting.
    """

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        *,
        mode: Literal["structured", "binary"] = "structured",
        properties: Mapping[str, str] | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        try:
            from confluent_kafka import KafkaException, Producer
        except ModuleNotFoundError:
            raise UsageError("kafka: confluent-kafka is not installed: pip install 'seatrial[kafka]'") from None
        self._topic, self._mode, self._timeout = topic, mode, timeout_s
        ours = {
            "bootstrap.servers": bootstrap,
            "client.id": "seatrial",
            "enable.idempotence": True,
            "acks": "all",
            "message.timeout.ms": int(timeout_s * 1000),
            "log_level": 0,
        }
        try:
            self._producer: Any = Producer({**(properties or {}), **ours})
        except (KafkaException, TypeError, ValueError) as error:
            raise UsageError(f"kafka topic {topic}: {_words(error)}") from None

    def send(self, event: dict[str, Any], now: datetime) -> Sent:
        """See Sender.send."""
        from confluent_kafka import KafkaException

        said: list[Any] = []
        headers, value = self._message(event)
        try:
            self._producer.produce(
                self._topic,
                key=str(event["data"]["model"]).encode(),
                value=value,
                headers=list(headers.items()),
                on_delivery=lambda error, _message: said.append(error),
            )
            self._producer.flush(self._timeout + 1.0)
        except (KafkaException, BufferError) as error:
            return Sent(False, f"topic {self._topic}: {_words(error)}")
        if not said:
            self._producer.purge()
            self._producer.flush(1.0)
            return Sent(False, f"topic {self._topic}: no acknowledgement in time")
        if said[0] is None:
            return Sent(True)
        return Sent(False, f"topic {self._topic}: {said[0].name()}", refused=said[0].name() == "MSG_SIZE_TOO_LARGE")

    def close(self) -> None:
        """See Sender.close."""
        self._producer.flush(1.0)

    def _message(self, event: dict[str, Any]) -> tuple[dict[str, bytes], bytes]:
        if self._mode == "structured":
            return {"content-type": b"application/cloudevents+json; charset=UTF-8"}, canonical_json(event).encode()
        from cloudevents.core.bindings.kafka import to_binary_event
        from cloudevents.core.formats.json import JSONFormat

        message = to_binary_event(JSONFormat().read(None, canonical_json(event)))
        return message.headers, message.value


def _words(error: BaseException) -> str:
    first: Any = error.args[0] if error.args else error
    return str(first.name()) if hasattr(first, "name") else str(first)
