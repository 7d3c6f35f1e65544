"""The BentoML service: packaging, workers, health and metrics are BentoML's; contract and cost of a request are ours.

Start with `bentoml serve serving.service:SeatrialService --host 127.0.0.1`, or build a bento with `bentoml build`.
"""

from __future__ import annotations

from typing import Any

import bentoml

from serving.app import make_app
from serving.authenticate import access_of_environment
from serving.doors import BENTOML_DOORS, DOORS
from serving.guard import Guard
from serving.lazy import LazyHandler

_handler = LazyHandler()


# Tracing costs 200 us a request even when nothing is sampled, and the decision log says more than an access log.
@bentoml.service(
    name="seatrial",
    workers=1,
    threads=4,
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ".*"},
    metrics={"enabled": True, "namespace": "seatrial_http"},
    traffic={"timeout": 35, "max_concurrency": 64},
    http={"host": "127.0.0.1"},  # pyright: ignore[reportArgumentType]
)
@bentoml.asgi_app(make_app(_handler.get), path="/")
class SeatrialService:
    """Serves every model of the workspace named by SEATRIAL_HOME."""

    def __init__(self) -> None:
        _handler.get()

    async def __is_ready__(self) -> bool:
        return bool(_handler.get().ready()["ready"])

    @bentoml.on_shutdown
    def put_away(self) -> None:
        """Bring the logs onto the disk."""
        _handler.close()


# BentoML answers some addresses (its /metrics among them) beside our app: the guard stands before both.
service: Any = SeatrialService
service.add_asgi_middleware(Guard, doors=(*DOORS, *BENTOML_DOORS), access=access_of_environment)
