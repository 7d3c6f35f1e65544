"""A TCP proxy on loopback that misbehaves on request: for servers that delay, stall, cut off or answer half."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable

_CHUNK = 65536


class TcpProxy:
    """Passes connections on to a server; each attribute may be changed while it runs.

    `delay`: seconds before each piece is passed on; `stall`: keep what the server sends until it is False again;
    `cut_after`: close a connection once the server sent that many bytes, of which all pass (0: at once);
    `truncate`: pass only so many bytes of each piece that the server sends, then close;
    `drop_reply`: called with each piece that the client sends; where it says True, the piece still reaches the
    server, but the connection closes before any answer comes back.
    """

    def __init__(self, host: str, port: int) -> None:
        self._to = (host, port)
        self.delay, self.stall = 0.0, False
        self.cut_after: int | None = None
        self.truncate: int | None = None
        self.drop_reply: Callable[[bytes], bool] = lambda _: False
        self.dropped = 0
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> TcpProxy:
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self._listener, *self._open):
            _close(one)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(self._to, 5)
                except OSError:
                    _close(client)
                    continue
                self._open += [client, server]
                deaf = threading.Event()
                for work in (self._upward, self._downward):
                    threading.Thread(target=work, args=(client, server, deaf), daemon=True).start()

    def _upward(self, client: socket.socket, server: socket.socket, deaf: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while piece := client.recv(_CHUNK):
                time.sleep(self.delay)
                if self.drop_reply(piece):
                    self.dropped += 1
                    deaf.set()
                server.sendall(piece)
        if not deaf.is_set():
            _close(server)

    def _downward(self, client: socket.socket, server: socket.socket, deaf: threading.Event) -> None:
        sent = 0
        with contextlib.suppress(OSError):
            while (self.cut_after is None or sent < self.cut_after) and (piece := server.recv(_CHUNK)):
                while self.stall:
                    time.sleep(0.01)
                time.sleep(self.delay)
                if deaf.is_set():
                    break
                client.sendall(piece[: self.truncate])
                sent += len(piece)
                if self.truncate is not None and len(piece) > self.truncate:
                    break
        _close(client)
        _close(server)


def _close(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
