"""Who answers: a sticky split of keys between champion and canary. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from contracts.decisions import Route
from contracts.rollout import Arm

COMPOSITE_KEYS: dict[str, tuple[tuple[str, ...], str]] = {
    "lane": (("origin", "destination"), "->"),
    "shipment_lane": (("origin", "destination"), "->"),
    "sku_location": (("sku", "location"), "|"),
}


def bucket(salt: str, key: str) -> float:
    """The key's place in [0, 1), the same on every machine for one salt; another salt gives an independent place.

    Args:
        salt: at most 64 bytes of it count.
        key: any text.

    Source: keyed BLAKE2b (RFC 7693); Python's own hash() differs between processes.
    """
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8, key=salt.encode()[:64]).digest()
    return (int.from_bytes(digest, "big") >> 11) / 9007199254740992.0


def canary_key(name: str, fields: Mapping[str, str]) -> str | None:
    """The text by which a decision is split, or None when a field of it is missing.

    Args:
        name: `lane` (origin->destination), `sku_location`, or any field of the request.
        fields: the decision's text fields.
    """
    parts, between = COMPOSITE_KEYS.get(name, ((name,), ""))
    values = [fields.get(part) for part in parts]
    if any(value is None for value in values):
        return None
    return between.join(str(value) for value in values)


def route(
    *,
    champion: str | None,
    challenger: str | None,
    share: float,
    salt: str,
    key_name: str,
    segments: Mapping[str, Sequence[str]],
    fields: Mapping[str, str],
    revision: int,
    stopped: str = "",
) -> Route:
    """Which arm and version should answer one decision, and why.

    Args:
        champion, challenger: versions; None when there is none. A challenger without a champion gets nothing.
        share: the canary's share of keys in [0, 1]. Raising it keeps every key that was in the canary before.
        salt: of this rollout.
        key_name: see `canary_key`.
        segments: field -> values that may be answered by the canary; empty lets everything in.
        fields: the decision's text fields.
        revision: of the rollout state that these values come from.
        stopped: why the model is stopped, so that no version answers; empty when it is not.
    """
    key = canary_key(key_name, fields)
    place = bucket(salt, key if key is not None else "")
    arm: Arm = "champion"
    version, reason = champion, "no canary"
    if stopped:
        arm, version, reason = "none", None, f"stopped: {stopped}"
    elif champion is None:
        arm, reason = "none", "no champion"
    elif challenger is not None and share > 0:
        outside = _outside(segments, fields)
        if key is None:
            reason = f"the request has no {key_name}"
        elif outside:
            reason = f"{outside} is outside the canary's segments"
        elif place < share:
            arm, version, reason = "canary", challenger, f"key is in the canary's {share:.0%}"
        else:
            reason = f"key is outside the canary's {share:.0%}"
    return Route.model_construct(
        arm=arm, version=version, key=key or "", bucket=place, share=share, reason=reason, revision=revision
    )


def _outside(segments: Mapping[str, Sequence[str]], fields: Mapping[str, str]) -> str:
    """Name of the first segment field that keeps the decision out of the canary, or an empty text."""
    return next((name for name, allowed in segments.items() if fields.get(name) not in allowed), "")
