"""The OpenAPI 3.1 document of the service, made from the request models."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic.json_schema import models_json_schema

from contracts.decisions import DecisionRecord
from serving.doors import DOORS, Door
from serving.requests import ForecastRequest, OutcomeRequest, ScoreRequest

_REF = "#/components/schemas/{model}"
_PROBLEMS = {
    "408": "The body came too slowly",
    "409": "The request id was used before with another body",
    "413": "The body is too large",
    "415": "The body is not plain JSON",
    "422": "A field is not valid; `errors` names it",
    "503": "The model or the decision log is not available",
}


@cache
def openapi() -> dict[str, Any]:
    """The document; made once."""
    asked = (ForecastRequest, ScoreRequest, OutcomeRequest)
    _, schemas = models_json_schema(
        [*((kind, "validation") for kind in asked), (DecisionRecord, "serialization")], ref_template=_REF
    )
    paths: dict[str, Any] = {}
    for door in DOORS:
        if door.answers in _OPERATIONS:
            paths.setdefault(door.path, {})[door.method.lower()] = _guarded(door, _OPERATIONS[door.answers]())
    return {
        "openapi": "3.1.0",
        "info": {"title": "Seatrial", "version": _release(), "description": "Supply-chain decisions on record."},
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"] | {"Problem": _PROBLEM, "Answer_": _ANSWER},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "description": _BEARER}},
        },
    }


def _guarded(door: Door, operation: dict[str, Any]) -> dict[str, Any]:
    """The operation with what its door asks for: nothing, or a key or token with a role."""
    if door.role is None:
        return {**operation, "security": []}
    refusals = {
        "401": _problem("No key or token, or one that does not hold"),
        "403": _problem("Another role is needed"),
    }
    answers = {**operation["responses"], **refusals}
    return {**operation, "responses": answers, "security": [{"bearer": []}], "x-seatrial-role": door.role.value}


_PROBLEM: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {"type": "object", "properties": {"field": {"type": "string"}, "wanted": {"type": "string"}}},
        },
    },
}
_ANSWER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "request_id": {"type": "string"},
        "model": {"type": "string"},
        "decisions": {"type": "array", "items": {"type": "object"}},
        "outcomes": {"type": "array", "items": {"type": "object"}},
    },
}


def _post(summary: str, body: str, status: str, *parameters: dict[str, Any]) -> dict[str, Any]:
    responses = {code: _problem(words) for code, words in _PROBLEMS.items()}
    if parameters:
        responses["404"] = _problem("No such model")
    responses[status] = {"description": "Done, on record", "content": _json_of("Answer_")}
    return {
        "summary": summary,
        "parameters": list(parameters),
        "requestBody": {"required": True, "content": _json_of(body)},
        "responses": responses,
    }


def _decision() -> dict[str, Any]:
    return {
        "summary": "One decision's record",
        "parameters": [_path_parameter("wanted", "The decision's id")],
        "responses": {
            "200": {"description": "The record", "content": _json_of("DecisionRecord")},
            "404": _problem("No such decision"),
        },
    }


def _path_parameter(name: str, words: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "description": words, "schema": {"type": "string"}}


def _json_of(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _problem(words: str) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {"description": words, "content": content}


def _plain(words: str) -> dict[str, Any]:
    return {"summary": words, "responses": {"200": {"description": words}, "503": {"description": "Not yet"}}}


def _release() -> str:
    try:
        return version("seatrial")
    except PackageNotFoundError:
        return "0+unknown"


def _slug() -> dict[str, Any]:
    return _path_parameter("slug", "The model's name, with - for _")


_BEARER = "An API key (st_...) or a token of the issuer; needed where the service runs with SEATRIAL_ACCESS=required"
_OPERATIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "forecast": lambda: _post("Forecast demand", "ForecastRequest", "200", _slug()),
    "score": lambda: _post("Score shipments", "ScoreRequest", "200", _slug()),
    "outcomes": lambda: _post("Report outcomes", "OutcomeRequest", "202"),
    "decision": _decision,
    "live": lambda: _plain("The process answers"),
    "ready": lambda: _plain("At least one model is in service"),
    "metrics": lambda: _plain("Prometheus series"),
}
