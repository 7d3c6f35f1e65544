"""Fault 53: a name that leads out of its folder, as a model, version, file of an artifact, decision id or argument.

Sixty tricks against every door that takes a name: refused in our own words, nothing outside the workspace opened or
made, and what lies outside said to nobody.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
import uvicorn
from pydantic import ValidationError

from contracts.canonical import canonical_json, sha256_hex
from contracts.errors import ArtifactRefused, UsageError
from contracts.events_out import EventsOut
from contracts.policy import Policy
from contracts.rollout import RowKind
from contracts.settings import Settings
from registry.artifacts import MANIFEST, ArtifactStore, verify
from registry.ledger import RowDraft
from registry.snapshot import Deployed
from serving.app import make_app
from serving.wiring import handler_from
from tests.lifecycle.command_runs import ran
from tests.registry.rig import START, policy

ROOT = Path(__file__).resolve().parents[2]
PLANTED = "planted-beyond-the-root"

# {o} is the absolute path of a folder beside the workspace that nobody may look into.
TRICKS = [
    *("..", ".", "../outside", "../../outside", "../../../outside", "../../../../../../../../etc/passwd"),
    *("../outside/late_delivery", "./../outside", "a/../../outside", "late_delivery/../../outside", "/", "//"),
    *("{o}", "{o}/late_delivery", "/etc/passwd", "//etc/passwd", "///etc/passwd", "~", "~root", "~/.ssh/id_rsa"),
    *("%2e%2e", "%2e%2e/outside", "%2e%2e%2foutside", "..%2foutside", "%252e%252e%252foutside", "..%5coutside"),
    *("%c0%ae%c0%ae/outside", "..%c0%afoutside", "%2f{o}", "..\\outside", "..\\..\\outside", "\\\\host\\share"),
    *("C:\\Windows", "C:/Windows", "c:outside", "late_delivery:stream", "file://{o}", "file:{o}", "FILE://{o}"),
    *("http://127.0.0.1/x", "s3://bucket/../outside", "late_delivery#/../../outside", "#{o}", "?/../outside"),
    *(
        "late_delivery\x00",
        "\x00",
        "..\x00/outside",
        "late_delivery\x00/../../outside",
        "late_delivery\n",
        "v1\n",
        "\n",
    ),
    *("．．/outside", "‥/outside", "․․/outside", "..∕outside", "..⁄outside", "late_delivery\u202e", "ｌate_delivery"),
    *("a" * 64, "a" * 5_000, "../" * 2_000 + "outside", "", " ", " late_delivery", "late_delivery ", "-rf", "--help"),
    *(
        "$(touch {o}/x)",
        "`touch {o}/x`",
        "; touch {o}/x",
        "| cat {o}/planted",
        "{{{{7*7}}}}",
        "${{jndi:x}}",
        "con",
        "nul",
    ),
    *("....//outside", "..;/outside", ".%00./outside", "late_delivery/", "/late_delivery", "late_delivery/v1", "'--"),
]
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_WATCHED: list[tuple[str, str, bool]] = []
_ON: list[bool] = []


def _seen(event: str, args: tuple[object, ...]) -> None:
    """What the interpreter tells about files, while somebody watches."""
    if not _ON or not (event == "open" or event.startswith(("os.", "shutil.", "sqlite3.connect"))):
        return
    paths = [os.fsdecode(arg) for arg in args[:2] if isinstance(arg, (str, bytes))]
    writes = event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate")
    writes = writes or (event == "open" and isinstance(args[2], int) and bool(args[2] & WRITES))
    _WATCHED.extend((event, path, writes) for path in (paths[:1] if event == "open" else paths))


sys.addaudithook(_seen)


class Yard:
    """A workspace and, beside it, a folder with a secret in every shape that a name could be read as."""

    def __init__(self, folder: Path) -> None:
        self.home, self.outside = folder / "home", folder / "outside"
        for name in ("artifacts/late_delivery", "serving", "decisions"):
            (self.home / name).mkdir(parents=True)
        for name in ("late_delivery/v1", "v1", "demand"):
            (self.outside / name).mkdir(parents=True)
            (self.outside / name / MANIFEST).write_text(PLANTED)
        for name in ("planted", "late_delivery.json", "demand.json"):
            (self.outside / name).write_text(PLANTED)
        (folder / "outside.json").write_text(PLANTED)
        self.before = self._beyond()

    def tricks(self) -> list[str]:
        """The sixty and more."""
        return [trick.format(o=self.outside) if "{o}" in trick else trick for trick in TRICKS]

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Nothing beyond the home is opened, listed, made or changed meanwhile, but programs and their libraries."""
        _WATCHED.clear()
        _ON.append(True)
        try:
            yield
        finally:
            _ON.clear()
        for event, path, writes in _WATCHED:
            real = Path(os.path.realpath(path)) if "\0" not in path else Path(path)
            assert not real.is_relative_to(self.outside), (event, path)
            assert real != Path("/etc/passwd"), event
            allowed = real.is_relative_to(self.home) or "__pycache__" in path or path.startswith(("/dev/", "/proc/"))
            assert not writes or allowed, (event, path)
        assert self._beyond() == self.before

    def _beyond(self) -> dict[str, bytes]:
        found = [path for path in self.home.parent.rglob("*") if not path.is_relative_to(self.home)]
        return {str(path): path.read_bytes() if path.is_file() else b"" for path in found}


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    """A workspace in a folder of its own."""
    return Yard(tmp_path)


def test_the_corpus_is_large_and_each_trick_is_one(record_property: Callable[[str, object], None]) -> None:
    """At least sixty, none twice."""
    assert len(set(TRICKS)) == len(TRICKS) >= 60
    record_property("figure: path tricks refused at every door, files touched outside 0", len(TRICKS))


def test_the_artifact_store_takes_only_names_and_versions(yard: Yard) -> None:
    """As a model, as a version, and as both."""
    store = ArtifactStore(yard.home / "artifacts")
    doors = (
        store.path,
        store.folder,
        lambda m, v: store.holds_other(m, v, "f" * 64),
        lambda m, v: store.place(m, v, ROOT),
    )
    with yard.watched():
        for trick in yard.tricks():
            for model, version in ((trick, "v1"), ("late_delivery", trick), (trick, trick)):
                if (model, version) == ("con", "v1") or (model, version) == ("nul", "v1"):
                    continue  # plain names here; no system of ours gives them another meaning
                for door in doors:
                    with pytest.raises(UsageError):
                        door(model, version)


def test_the_ledger_takes_only_names_of_models(yard: Yard) -> None:
    """What could become a path never becomes a row."""
    for trick in yard.tricks():
        if trick not in ("con", "nul"):
            with pytest.raises(UsageError):
                RowDraft(trick, RowKind.REGISTERED, "v1", START, "ann", "because", "q1")


def test_policies_targets_and_snapshots_take_only_names(yard: Yard) -> None:
    """A policy's model, a target's name; a snapshot's folder stays below the artifacts whatever it says."""
    plain = policy().model_dump(mode="json")
    root = yard.home / "artifacts"
    for trick in yard.tricks():
        if trick not in ("con", "nul"):
            with pytest.raises(ValidationError):
                Policy.model_validate({**plain, "model": trick})
            with pytest.raises(ValidationError):
                EventsOut.model_validate({"targets": [{"name": trick, "kind": "file", "path": "x"}]})
        try:
            folder = Deployed(version="v1", manifest_sha256="f" * 64, folder=trick).folder
        except ValidationError:
            continue
        assert Path(os.path.normpath(root / folder)).is_relative_to(root)


def test_a_manifest_that_names_a_file_elsewhere_is_refused_without_looking_there(yard: Yard) -> None:
    """Also when its hash is right and the file is there."""
    folder = yard.home / "artifacts" / "late_delivery" / "v1"
    folder.mkdir()
    for trick in yard.tricks():
        entry = {"sha256": sha256_hex(PLANTED), "size": len(PLANTED)}
        content = canonical_json({"format": 1, "files": {trick: entry}, "meta": {}}).encode()
        (folder / MANIFEST).write_bytes(content)
        with yard.watched(), pytest.raises(ArtifactRefused):
            verify(folder, sha256_hex(content))


COMMANDS = [
    ["ledger", "log", "TRICK"],
    ["rollout", "status", "TRICK"],
    ["rollout", "hold", "TRICK", "--dry-run"],
    ["card", "TRICK"],
    ["card", "late_delivery", "TRICK"],
    ["replay", "TRICK"],
    ["outbox", "list", "--target", "TRICK"],
]


@pytest.mark.parametrize("command", range(len(COMMANDS)))
def test_a_command_refuses_the_name_and_touches_nothing_outside(
    yard: Yard, command: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1 or 2 with a sentence; the secret is on no screen. The commands share out the tricks."""
    environment = {
        "SEATRIAL_HOME": str(yard.home),
        "SEATRIAL_POLICIES": str(ROOT / "policies"),
        "SEATRIAL_FEATURES": str(ROOT / "features" / "repo"),
        "SEATRIAL_EVENTS": str(yard.home / "events.yaml"),
    }
    (yard.home / "events.yaml").write_text("targets: [{name: lake, kind: file, path: x}]\n")
    for trick in [trick for trick in yard.tricks() if not trick.startswith("-")][command :: len(COMMANDS)]:
        arguments = [trick if part == "TRICK" else part for part in COMMANDS[command]]
        with yard.watched():
            ended = ran(monkeypatch, capsys, environment, arguments)
        assert ended.code in (1, 2), (arguments, ended)
        assert ended.err.strip(), arguments
        assert PLANTED not in ended.out + ended.err


@contextmanager
def _served(yard: Yard) -> Iterator[int]:
    """The service over an empty workspace, on a real socket."""
    settings = Settings(home=yard.home, policies=ROOT / "policies", features=ROOT / "features" / "repo")
    handler = handler_from(settings, auto_refresh=False)
    app = make_app(lambda: handler, background=False)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(app, log_level="critical", lifespan="off", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join(10)
    handler.close()


def _asked(port: int, method: str, target: bytes) -> tuple[int, bytes]:
    """Status and answer to a request whose target goes out byte for byte."""
    body = b'{"items": [{"sku": "milk", "location": "north"}]}' if method == "POST" else b""
    head = b"%s %s HTTP/1.1\r\nhost: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/json\r\n"
    length = b"Content-Length: %d\r\n\r\n" % len(body)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(head % (method.encode(), target) + length + body)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return int(answer.split(b" ", 2)[1]), answer


def test_the_service_answers_such_names_with_4xx_and_opens_nothing(yard: Yard) -> None:
    """In the path of a model and of a decision, as it stands and percent-encoded, over a real socket."""
    with _served(yard) as port, yard.watched():
        for trick in yard.tricks():
            raw = trick.encode().replace(b"\r", b"").replace(b"\n", b"%0a").replace(b" ", b"%20").replace(b"\0", b"%00")
            for part in (raw, quote(trick, safe="").encode()):
                for method, target in (("GET", b"/v1/decisions/" + part), ("POST", b"/v1/" + part + b"/forecast")):
                    status, answer = _asked(port, method, target)
                    assert status in (400, 404, 405, 414, 422), (trick, method, status)
                    assert PLANTED.encode() not in answer
                    assert b"Traceback" not in answer


def test_the_watch_would_have_seen_a_look_outside(yard: Yard) -> None:
    """The check of the check: opening, listing and making outside are noticed."""
    looks: list[Callable[[], object]] = [
        lambda: (yard.outside / "planted").read_text(),
        lambda: list(yard.outside.iterdir()),
        lambda: (yard.outside.parent / "made").mkdir(),
        lambda: (yard.home / ".." / "outside" / "planted").open("rb").close(),
    ]
    for look in looks:
        with pytest.raises(AssertionError), yard.watched():
            look()
