"""What leaves Seatrial about its models: the data of an event, and `events.yaml`, which says where events go."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from contracts.errors import TimeInvalid
from contracts.rollout import RowKind
from contracts.times import iso, parse_time
from contracts.yaml_file import Strict

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
Globs = Annotated[tuple[str, ...], Field(min_length=1)]


class EventData(Strict):
    """The data of one event: one row of the ledger, in the facts that somebody outside can use.

    `kind`: what happened; `revision` and `hash`: which row of the model's ledger says so; `facts`: what the row adds
    to it, by name (outcome, criteria, step, share, by, to, manifest_sha256, policy_hash, ...); names may be added.
    """

    model: str
    version: str
    revision: int
    kind: RowKind
    actor: str
    reason: str
    hash: str
    facts: dict[str, Any]


class Target(Strict):
    """What every target has: a name, which events it wants, and how long they are tried.

    `types`: glob patterns over the event type, any of which lets it through. `since`: earlier events are not for this
    target; empty sends the whole history. `timeout_s`: for one attempt. `max_attempts`: then the event is dead.
    """

    name: Name
    types: Globs = ("org.seatrial.*",)
    since: str = ""
    timeout_s: Annotated[float, Field(gt=0, le=120)] = 10.0
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 20

    @field_validator("since", mode="before")
    @classmethod
    def _a_moment(cls, value: Any) -> Any:
        if isinstance(value, datetime) or not isinstance(value, (date, str)):
            raise ValueError("a time in quotation marks, with a zone, like '2026-01-31T00:00:00Z'")
        try:
            return iso(parse_time(str(value), "since")) if value else ""
        except TimeInvalid as error:
            raise ValueError(str(error)) from None


class WebhookTarget(Target):
    """An address that events are posted to, signed.

    `secret_env`: environment variables that hold the signing secrets; the first signs, and so do the others while a
    secret is being changed. `allow`: host names, addresses or networks (10.2.0.0/16) that may be reached although they
    are not public; plain http and ports other than 443 need it too.
    """

    kind: Literal["webhook"]
    url: str
    secret_env: Annotated[tuple[str, ...], Field(min_length=1, max_length=4)]
    allow: tuple[str, ...] = ()

    @field_validator("secret_env", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class FileTarget(Target):
    """A file that events are appended to, one JSON object a line."""

    kind: Literal["file"]
    path: str


class KafkaTarget(Target):
    """A Kafka topic; the key is the model, so that its events keep their order.

    `bootstrap`: host:port, several separated by commas. `properties`: further librdkafka settings, like
    security.protocol. `secret_env`: librdkafka setting -> environment variable that holds it, for sasl.password and the
    like.
    """

    kind: Literal["kafka"]
    bootstrap: str
    topic: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
    mode: Literal["structured", "binary"] = "structured"
    properties: dict[str, str] = Field(default_factory=dict)
    secret_env: dict[str, str] = Field(default_factory=dict)

    @field_validator("properties")
    @classmethod
    def _no_secret(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if any(word in name.lower() for word in ("password", "secret", "jaas", "key.pem", "token")):
                raise ValueError(f"no secret in this file: name an environment variable for {name} under secret_env")
        return value


AnyTarget = Annotated[WebhookTarget | FileTarget | KafkaTarget, Field(discriminator="kind")]


class EventsOut(Strict):
    """`events.yaml`: the targets that events go to."""

    targets: tuple[AnyTarget, ...] = ()

    @model_validator(mode="after")
    def _names_once(self) -> EventsOut:
        names = [target.name for target in self.targets]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"every target a name of its own; {name!r} stands twice")
        return self
