"""What may be asked: strict requests. Every refusal names the field, and nothing that came in is repeated in words."""

from __future__ import annotations

import json
import math
import unicodedata
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)

from contracts.errors import SeatrialError, TimeInvalid, UsageError
from contracts.times import iso, parse_time, utc

_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_EARLIEST, _LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
_SHOWN = 80


class RequestInvalid(UsageError):
    """A request breaks its schema; `problems` are (field, what is wanted) pairs, first fault first."""

    def __init__(self, problems: tuple[tuple[str, str], ...]) -> None:
        self.problems = problems
        super().__init__("; ".join(f"{field}: {words}" for field, words in problems))


def _visible(value: str) -> str:
    if not value.isascii() or not value.isprintable():
        for char in value:
            if unicodedata.category(char) in _INVISIBLE:
                raise ValueError("text without control, invisible or direction-changing characters")
    if value != value.strip():
        raise ValueError("text without spaces at its ends")
    return value


def _moment(value: Any) -> datetime:
    if not isinstance(value, (str, datetime)) or (isinstance(value, str) and len(value) > 40):
        raise ValueError("a time with a zone, like 2026-01-31T00:00:00Z")
    try:
        moment = utc(value) if isinstance(value, datetime) else parse_time(value)
    except (TimeInvalid, OverflowError):
        raise ValueError("a time with a zone, like 2026-01-31T00:00:00Z") from None
    if not _EARLIEST <= moment < _LATEST:
        raise ValueError("a time between 1970 and 2200")
    return moment


def _positive_zero(value: float) -> float:
    if value == 0 and math.copysign(1.0, value) < 0:
        raise ValueError("a number; negative zero is not one that anybody measured")
    return value


Key = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_visible)]
RequestId = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$")]
Moment = Annotated[datetime, BeforeValidator(_moment), PlainSerializer(iso, return_type=str)]
Amount = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False), AfterValidator(_positive_zero)]
Minutes = Annotated[float, Field(ge=-1e6, le=1e7, allow_inf_nan=False), AfterValidator(_positive_zero)]


class Inbound(BaseModel):
    """A frozen value from outside: no unknown fields, no conversion between types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class SkuLocation(Inbound):
    """One series to forecast."""

    sku: Key
    location: Key


class ForecastRequest(Inbound):
    """Forecasts of some series. `horizon`: days ahead, at most (and by default) the policy's own."""

    request_id: RequestId | None = None
    items: list[SkuLocation] = Field(min_length=1, max_length=10_000)
    horizon: Annotated[int, Field(ge=1, le=366)] | None = None


class Shipment(Inbound):
    """One shipment as its promise is made; units: km, units, kg, currency."""

    shipment_id: Key
    carrier: Key
    origin: Key
    destination: Key
    promised_at: Moment
    scheduled_at: Moment | None = None
    supplier: Key | None = None
    mode: Key | None = None
    category: Key | None = None
    distance_km: Amount | None = None
    quantity: Amount | None = None
    weight_kg: Amount | None = None
    value: Amount | None = None


class ScoreRequest(Inbound):
    """Risks of some shipments."""

    request_id: RequestId | None = None
    items: list[Shipment] = Field(min_length=1, max_length=10_000)


class OutcomeItem(Inbound):
    """How one shipment ended. With `decision_id` the shipment's fields come from the decision's own record."""

    decision_id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None = None
    shipment_id: Key | None = None
    late: bool
    delay_minutes: Minutes | None = None
    occurred_at: Moment
    carrier: Key | None = None
    supplier: Key | None = None
    origin: Key | None = None
    destination: Key | None = None
    mode: Key | None = None
    category: Key | None = None

    @model_validator(mode="after")
    def _names_one(self) -> OutcomeItem:
        if (self.decision_id is None) == (self.shipment_id is None):
            raise ValueError("exactly one of decision_id and shipment_id")
        return self


class OutcomeRequest(Inbound):
    """Outcomes as they become known; the same outcome again is taken once."""

    request_id: RequestId | None = None
    items: list[OutcomeItem] = Field(min_length=1, max_length=10_000)


Request = TypeVar("Request", bound=Inbound)


def decode(body: bytes) -> dict[str, Any]:
    """A JSON object from bytes; refuses doubled keys, which every common parser drops silently.

    Raises:
        RequestInvalid: not UTF-8, not JSON, no object, a doubled key, nested or long beyond reason.
    """
    try:
        tree = json.loads(body.decode("utf-8"), object_pairs_hook=_once)
    except SeatrialError:
        raise
    except UnicodeDecodeError:
        raise RequestInvalid((("(body)", "UTF-8 text"),)) from None
    except (ValueError, RecursionError):
        raise RequestInvalid((("(body)", "valid JSON"),)) from None
    if not isinstance(tree, dict):
        raise RequestInvalid((("(body)", "a JSON object"),))
    return tree


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        doubled, count = Counter(key for key, _ in pairs).most_common(1)[0]
        raise RequestInvalid(((printable(doubled), f"each key once, not {count} times"),))
    return made


def read_request(kind: type[Request], tree: Mapping[str, Any]) -> Request:
    """The tree as a request of `kind`.

    Raises:
        RequestInvalid: with the fields at fault (at most ten) and what was wanted there.
    """
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        problems = [
            (field_path(fault["loc"]), str(fault["msg"]).removeprefix("Value error, "))
            for fault in error.errors(include_url=False, include_input=False, include_context=False)[:10]
        ]
        raise RequestInvalid(tuple(problems)) from None


def as_request(kind: type[Request], given: Request | Mapping[str, Any]) -> Request:
    """A request as it is, or a mapping read as one; raises as `read_request`."""
    return given if isinstance(given, kind) else read_request(kind, cast("Mapping[str, Any]", given))


def field_path(location: tuple[Any, ...]) -> str:
    """A pydantic location as text, fit to be shown: `items.0.distance_km`."""
    return ".".join(printable(str(part)) for part in location) or "(body)"


def printable(text: str) -> str:
    """Text from outside with everything invisible replaced and its length capped, for field names in answers."""
    shown = "".join(char if char.isprintable() else "?" for char in text[:_SHOWN])
    return shown + ("..." if len(text) > _SHOWN else "")
