"""From an entry of events.yaml to what sends there; secrets come from the environment, by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from contracts.errors import ConfigInvalid
from contracts.events_out import AnyTarget, FileTarget, WebhookTarget
from registry.outbox import Sender


def sender_of(target: AnyTarget, environment: Mapping[str, str], file: str = "events.yaml") -> Sender:
    """What brings events to a target; nothing is connected to yet.

    Args:
        target: an entry of the file.
        environment: variables, among them those that hold the secrets.
        file: the file's name, for errors.

    Raises:
        ConfigInvalid: a variable that should hold a secret is not set.
        TargetRefused: an address or a path that events may not go to.
        UsageError: a secret that is none, or an extra that is not installed.
    """
    if isinstance(target, FileTarget):
        from registry.event_file import EventFile

        return EventFile(Path(target.path))
    if isinstance(target, WebhookTarget):
        from registry.webhook import Webhook

        secrets = [_secret(target.name, name, environment, file) for name in target.secret_env]
        return Webhook(target.url, secrets, allow=target.allow, timeout_s=target.timeout_s)
    from registry.kafka_out import KafkaTopic

    secret = {setting: _secret(target.name, name, environment, file) for setting, name in target.secret_env.items()}
    properties = {**target.properties, **secret}
    return KafkaTopic(
        target.bootstrap, target.topic, mode=target.mode, properties=properties, timeout_s=target.timeout_s
    )


def _secret(target: str, name: str, environment: Mapping[str, str], file: str) -> str:
    if not environment.get(name):
        raise ConfigInvalid(file, f"{target}.secret_env", f"a secret in the environment variable {name}", "nothing")
    return environment[name]
