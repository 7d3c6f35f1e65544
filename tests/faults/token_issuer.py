"""An issuer of tokens for tests: its own keys, a JWK set, and a real server on loopback that can be stopped."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

ISSUER, AUDIENCE = "https://issuer.example", "seatrial"


class Issuer:
    """Three keys, one of each algorithm that is taken: r1 (RS256), e1 (ES256), d1 (EdDSA)."""

    def __init__(self) -> None:
        self.keys: dict[str, tuple[str, Any]] = {
            "r1": ("RS256", rsa.generate_private_key(public_exponent=65537, key_size=2048)),
            "e1": ("ES256", ec.generate_private_key(ec.SECP256R1())),
            "d1": ("EdDSA", ed25519.Ed25519PrivateKey.generate()),
        }

    def public(self, kid: str) -> dict[str, Any]:
        """One key as an entry of the JWK set."""
        algorithm, key = self.keys[kid]
        kinds: dict[str, Callable[..., Any]] = {
            "RS256": RSAAlgorithm.to_jwk,
            "ES256": ECAlgorithm.to_jwk,
            "EdDSA": OKPAlgorithm.to_jwk,
        }
        return {**kinds[algorithm](key.public_key(), as_dict=True), "kid": kid, "use": "sig"}

    def jwks(self) -> bytes:
        """The JWK set."""
        return json.dumps({"keys": [self.public(kid) for kid in self.keys]}).encode()

    def claims(self, now: datetime, **change: Any) -> dict[str, Any]:
        """Claims of a token that holds for ten minutes; a claim set to None is left out."""
        told = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "erp",
            "iat": int(now.timestamp()),
            "exp": int((now + timedelta(minutes=10)).timestamp()),
            "roles": ["caller", "viewer"],
            "seatrial_models": ["*"],
            **change,
        }
        return {name: value for name, value in told.items() if value is not None}

    def token(self, now: datetime, kid: str = "r1", **change: Any) -> str:
        """A signed token."""
        algorithm, key = self.keys[kid]
        return jwt.encode(self.claims(now, **change), key, algorithm, headers={"kid": kid})


class Served:
    """What a server on loopback answers and how often it was asked."""

    def __init__(self, content: bytes) -> None:
        self.content, self.status, self.asked, self.address = content, 200, 0, ""


@contextmanager
def serving(content: bytes) -> Iterator[Served]:
    """A loopback server with one answer, gone at the end of the block."""
    told = Served(content)

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.asked += 1
            self.send_response(told.status)
            if told.status == 302:
                self.send_header("location", "/elsewhere")
            self.end_headers()
            self.wfile.write(told.content)

        def log_message(self, *_: Any) -> None:
            """Tests print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    told.address = f"http://127.0.0.1:{server.server_address[1]}/jwks"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
