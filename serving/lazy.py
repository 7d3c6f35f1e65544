"""A handler that is made when first asked for, so that importing the service does no I/O."""

from __future__ import annotations

import threading

from contracts.environments import resolved
from contracts.settings import Settings
from serving.handler import DecisionHandler


class LazyHandler:
    """Makes one handler a process from the environment's settings."""

    def __init__(self) -> None:
        self._made: DecisionHandler | None = None
        self._lock = threading.Lock()

    def get(self) -> DecisionHandler:
        """The handler; made at the first call."""
        if self._made is None:
            with self._lock:
                if self._made is None:
                    from serving.wiring import handler_from

                    self._made = handler_from(resolved(Settings()), auto_refresh=False)
        return self._made

    def close(self) -> None:
        """Close the handler if there is one."""
        if self._made is not None:
            self._made.close()
