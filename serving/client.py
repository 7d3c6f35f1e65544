"""A small client of the service, on the standard library alone."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import quote

from contracts.errors import (
    DependencyDown,
    Forbidden,
    InputInvalid,
    RequestConflict,
    Unauthenticated,
    UnknownName,
    UsageError,
)


class Client:
    """Asks a running service.

    Args:
        address: like http://127.0.0.1:3000.
        timeout_s: for each request.
        key: an API key or token, where the service asks for one.
    """

    def __init__(self, address: str, timeout_s: float = 10.0, *, key: str = "") -> None:
        if not address.startswith(("http://", "https://")):
            raise UsageError(f"service address: wanted http:// or https://, got {address!r}")
        self._base, self._timeout = address.rstrip("/"), timeout_s
        self._headers = {"authorization": f"Bearer {key}"} if key else {}

    def ask(self, model: str, verb: Literal["forecast", "score"], body: Mapping[str, Any]) -> dict[str, Any]:
        """Decisions of one model: request_id, model and decisions.

        Args:
            model: the model's name.
            verb: forecast or score, by the model's kind.
            body: a ForecastRequest or ScoreRequest as plain JSON values.

        Raises:
            InputInvalid: a field is not valid. UnknownName: no such model. RequestConflict: the id came with another
            body. Unauthenticated, Forbidden: the key does not hold, or lacks the role. DependencyDown: no answer, or
            not available.
        """
        return self._post(f"/v1/{quote(model.replace('_', '-'), safe='')}/{verb}", body)

    def outcomes(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Report outcomes; see OutcomeRequest. Raises as `ask`."""
        return self._post("/v1/outcomes", body)

    def decision(self, decision_id: str) -> dict[str, Any]:
        """One decision's record. Raises as `ask`."""
        return self._ask(urllib.request.Request(f"{self._base}/v1/decisions/{quote(decision_id, safe='')}"))

    def ready(self) -> bool:
        """True when the service is up and has a model in service."""
        try:
            with urllib.request.urlopen(f"{self._base}/readyz", timeout=self._timeout) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        data = json.dumps(dict(body), allow_nan=False).encode()
        request = urllib.request.Request(self._base + path, data, {"content-type": "application/json"}, method="POST")
        return self._ask(request, str(body.get("request_id", "")))

    def _ask(self, request: urllib.request.Request, request_id: str = "") -> dict[str, Any]:
        for name, value in self._headers.items():
            request.add_unredirected_header(name, value)  # a redirect elsewhere must not carry the key along
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as answer:
                return dict(json.loads(answer.read()))
        except urllib.error.HTTPError as error:
            raise _translated(error, request, request_id) from None
        except (OSError, ValueError) as error:
            raise DependencyDown(f"service {self._base}", str(error)) from None


def _translated(error: urllib.error.HTTPError, request: urllib.request.Request, request_id: str) -> Exception:
    try:
        told = str(json.loads(error.read()).get("detail", ""))
    except (ValueError, AttributeError, OSError):
        told = error.reason
    if error.code == 401:
        return Unauthenticated(told)
    if error.code == 403:
        return Forbidden("this key", f"ask for {request.selector}", told)
    if error.code == 404:
        return UnknownName("address", request.selector, ())
    if error.code == 409:
        return RequestConflict(request_id)
    if error.code in (408, 413, 415, 422):
        return InputInvalid("request", "a valid request", told)
    return DependencyDown("service", f"{error.code} {told}")
