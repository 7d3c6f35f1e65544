"""Signatures of webhooks: how ours are made, and how a receiver checks one.

Source: Standard Webhooks (standardwebhooks.com): HMAC-SHA256 over `id.timestamp.body`, in the headers webhook-id,
webhook-timestamp (seconds since 1970) and webhook-signature (`v1,` and base64; several, one space apart, while a secret
is being changed). A secret is `whsec_` and base64 of 24 to 64 random bytes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from contracts.errors import Unauthenticated, UsageError

TOLERANCE = timedelta(minutes=5)
_PREFIX = "whsec_"


def secret_bytes(secret: str) -> bytes:
    """The key in a signing secret.

    Raises:
        UsageError: it is not `whsec_` and base64 of 24 to 64 bytes; the secret is not repeated.
    """
    try:
        key = base64.b64decode(secret.strip().removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.strip().startswith(_PREFIX) or not 24 <= len(key) <= 64:
        raise UsageError("signing secret: wanted whsec_ and base64 of 24 to 64 random bytes, got something else")
    return key


def sign(secrets: Sequence[str], event_id: str, at: datetime, body: bytes) -> dict[str, str]:
    """The headers that sign a body, with every one of the secrets.

    Args:
        secrets: one, or several while a secret is being changed.
        event_id: of the event; the same on every attempt, so that a receiver can drop what it has.
        at: time of this attempt.
        body: exactly the bytes that are sent.
    """
    stamp = str(int(at.timestamp()))
    signatures = [_signature(secret, event_id, stamp, body) for secret in secrets]
    return {"webhook-id": event_id, "webhook-timestamp": stamp, "webhook-signature": " ".join(signatures)}


def verify(
    secrets: Sequence[str],
    headers: Mapping[str, str],
    body: bytes,
    now: datetime,
    *,
    tolerance: timedelta = TOLERANCE,
) -> str:
    """Check that a received webhook was signed with one of our secrets, and lately.

    Args:
        secrets: those that are valid; the old and the new one while a secret is being changed.
        headers: of the request; names in any case.
        body: exactly the bytes that came, before anything has parsed them.
        now: the time at the receiver.
        tolerance: how far the time of signing may lie from `now`, either way.

    Returns:
        the event's id: drop the event when you have seen it before.

    Raises:
        Unauthenticated: a header is missing, the time is too far off, or no signature fits.
    """
    lower = {name.lower(): value for name, value in headers.items()}
    event_id, stamp, given = (lower.get(f"webhook-{part}", "") for part in ("id", "timestamp", "signature"))
    if not event_id or not given or not stamp.isascii() or not stamp.isdigit() or len(stamp) > 12:
        raise Unauthenticated("webhook-id, webhook-timestamp or webhook-signature is missing or malformed")
    if abs(now.timestamp() - int(stamp)) > tolerance.total_seconds():
        raise Unauthenticated("the webhook was signed too long ago, or in the future")
    wanted = [_signature(secret, event_id, stamp, body).encode() for secret in secrets]
    fits = [hmac.compare_digest(one, other.encode()) for one in wanted for other in given.split(" ")[:16]]
    if not any(fits):
        raise Unauthenticated("no signature of the webhook fits")
    return event_id


def _signature(secret: str, event_id: str, stamp: str, body: bytes) -> str:
    signed = b".".join((event_id.encode(), stamp.encode(), body))
    return "v1," + base64.b64encode(hmac.new(secret_bytes(secret), signed, hashlib.sha256).digest()).decode()
