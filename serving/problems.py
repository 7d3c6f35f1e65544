"""Errors as application/problem+json (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response


def problem(status: int, title: str, detail: str, *, headers: Mapping[str, str] | None = None, **more: Any) -> Response:
    """An error's answer; a request that was cut off mid-body closes its connection."""
    sent = {"retry-after": "1"} if status == 503 else {}
    if status in (408, 413):
        sent["connection"] = "close"
    body = orjson.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail, **more})
    return Response(
        body, status_code=status, media_type="application/problem+json", headers={**sent, **(headers or {})}
    )
