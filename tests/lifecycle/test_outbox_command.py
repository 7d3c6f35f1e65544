"""`seatrial outbox`: what goes out, what is told, and the exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.times import SystemClock
from registry.webhook_signature import verify
from tests.lifecycle.command_runs import Ended, ran
from tests.registry.receiver import Receiver, fill, receiving
from tests.registry.rig import MODEL

SECRET = "whsec_" + "b2xkLXNlY3JldC1vZi10d2VudHktZm91cg=="
Command = Callable[..., Ended]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `seatrial outbox ...` over a ledger of three rows."""
    fill(tmp_path)
    plain = {"SEATRIAL_HOME": str(tmp_path), "SEATRIAL_EVENTS": str(tmp_path / "events.yaml")}
    monkeypatch.setenv("ERP_SECRET", SECRET)
    return lambda *arguments, **more: ran(monkeypatch, capsys, {**plain, **more}, ["outbox", *arguments])


def wire(home: Path, receiver: Receiver, more: str = "") -> None:
    """An events.yaml with a webhook and a file."""
    (home / "events.yaml").write_text(
        "targets:\n"
        f"  - {{name: erp, kind: webhook, url: '{receiver.url}', secret_env: ERP_SECRET, allow: [127.0.0.1]{more}}}\n"
        f"  - {{name: lake, kind: file, path: {home / 'out' / 'events.jsonl'}}}\n"
    )


def test_without_a_file_there_is_nothing_to_do_and_that_is_said(command: Command) -> None:
    """Exit code 0: who wants no events out needs no file."""
    for arguments in (["list"], ["send"], ["send", "--watch", "1"]):
        ended = command(*arguments, "--json")
        assert ended.code == 0
        assert "no events go out" in ended.json["nothing_to_do"]
    ended = command("send", "--target", "erp")
    assert (ended.code, "no such file" in ended.err) == (2, True)


def test_events_go_to_every_target_and_the_signature_holds(tmp_path: Path, command: Command) -> None:
    """Sent once; the second run has nothing to do."""
    with receiving() as receiver:
        wire(tmp_path, receiver)
        first, second = command("send", "--json"), command("send", "--json")
    assert (first.code, second.code) == (0, 0)
    assert {name: told["delivered"] for name, told in first.json["targets"].items()} == {"erp": 3, "lake": 3}
    assert {name: told["delivered"] for name, told in second.json["targets"].items()} == {"erp": 0, "lake": 0}
    for request in receiver.got:
        assert verify([SECRET], request.headers, request.body, SystemClock().now()) == request.event["id"]
    lines = (tmp_path / "out" / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == receiver.ids


def test_a_target_that_is_down_ends_with_3_and_the_other_has_everything(tmp_path: Path, command: Command) -> None:
    """The list says why, and when it is tried again."""
    with receiving() as receiver:
        wire(tmp_path, receiver)
        receiver.answer = lambda _: (503, {})
        ended = command("send", "--json")
    assert ended.code == 3
    told = ended.json["targets"]["erp"]
    assert "HTTP 503" in told.pop("why")
    assert told == {"delivered": 0, "failed": 1, "died": 0, "waiting": 3, "dead": 0}
    assert ended.json["targets"]["lake"]["delivered"] == 3
    found = command("list", "--target", "erp", "--state", "pending", "--json").json["targets"]["erp"]
    assert [(e["revision"], e["attempts"]) for e in found["events"]] == [(1, 1), (2, 0), (3, 0)]
    shown = command("list")
    assert shown.code == 0
    assert "erp (webhook): 3 pending, 0 delivered, 0 dead" in shown.out
    assert "HTTP 503" in shown.out


def test_a_dead_event_ends_with_1_and_comes_back_by_retry(tmp_path: Path, command: Command) -> None:
    """Refused for good, found in the list, brought back once the receiver is mended."""
    with receiving() as receiver:
        wire(tmp_path, receiver)
        receiver.answer = lambda request: (410 if request.event["data"]["revision"] == 2 else 200, {})
        ended = command("send", "--json")
        assert (ended.code, ended.json["targets"]["erp"]["died"]) == (1, 1)
        (dead,) = command("list", "--state", "dead", "--json").json["targets"]["erp"]["events"]
        assert (dead["revision"], dead["model"], dead["attempts"]) == (2, MODEL, 1)
        assert "HTTP 410" in dead["last_error"]
        receiver.answer = lambda _: (200, {})
        assert command("send", "--json").json["targets"]["erp"]["delivered"] == 0
        dry = command("retry", dead["id"], "--dry-run", "--json")
        assert dry.json["will_be_tried_again"] == {"erp": [dead["id"]], "lake": []}
        assert command("send", "--json").json["targets"]["erp"]["delivered"] == 0
        assert command("retry", "--all-dead", "--json").code == 0
        assert command("send", "--json").json["targets"]["erp"]["delivered"] == 1
    assert receiver.ids[1] == receiver.ids[3] == dead["id"]


def test_a_dry_run_sends_nothing_and_says_what_waits(tmp_path: Path, command: Command) -> None:
    """And claims nothing: the run after it sends everything."""
    with receiving() as receiver:
        wire(tmp_path, receiver)
        ended = command("send", "--dry-run", "--json")
        assert ended.code == 0
        assert ended.json["targets"]["erp"]["waiting"] == 3
        assert receiver.connections == 0
        assert command("send").code == 0
        assert len(receiver.got) == 3


def test_watching_goes_on_for_its_time_and_sums_up(tmp_path: Path, command: Command) -> None:
    """Three seconds are two passes at least; what is due in between goes out."""
    with receiving() as receiver:
        wire(tmp_path, receiver)
        ended = command("send", "--watch", "2.5", "--target", "erp", "--json")
    assert ended.code == 0
    assert ended.json["targets"] == {"erp": {"delivered": 3, "failed": 0, "died": 0, "waiting": 0, "dead": 0}}


def test_mistakes_are_found_before_anything_is_sent(tmp_path: Path, command: Command) -> None:
    """A forbidden address, a missing secret, an unknown target or id, no id at all: exit code 2, no request."""
    with receiving() as receiver:
        wire(tmp_path, receiver)
        assert command("retry", "nobody").code == 2
        assert command("retry").code == 2
        assert "did you mean 'erp'" in command("list", "--target", "erpp").err
        wire(tmp_path, receiver, ", max_attempt: 3")
        assert "did you mean 'max_attempts'" in command("send").err
        wire(tmp_path, receiver)
        text = (tmp_path / "events.yaml").read_text()
        (tmp_path / "events.yaml").write_text(text.replace(", allow: [127.0.0.1]", ""))
        refused = command("send")
        (tmp_path / "events.yaml").write_text(text.replace("ERP_SECRET", "NOT_SET"))
        unset = command("send")
        assert receiver.connections == 0
    assert (refused.code, "refused" in refused.err) == (2, True)
    assert (unset.code, "NOT_SET" in unset.err) == (2, True)
    assert not (tmp_path / "out").exists()


def test_no_secret_is_on_any_screen(tmp_path: Path, command: Command) -> None:
    """Neither the signing secret nor the query of an address, whatever goes wrong."""
    with receiving() as receiver:
        wire(tmp_path, receiver)
        receiver.url += "?token=hush-hush"
        wire(tmp_path, receiver)
        receiver.answer = lambda _: (500, {"X": "hush-hush"})
        receiver.body = b"hush-hush"
        said = [command("send"), command("list"), command("list", "--json"), command("send", "--json")]
    assert receiver.got[0].path == "/events?token=hush-hush"
    for ended in said:
        assert SECRET not in ended.out + ended.err
        assert "hush-hush" not in ended.out + ended.err
