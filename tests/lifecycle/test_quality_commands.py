"""The command line on data quality: quarantine, freshness, and the veto of a retraining when a source stopped."""

from __future__ import annotations

import csv
from datetime import timedelta
from typing import Any

import pytest

from contracts.monitoring import Response
from contracts.times import SetClock, iso
from drift.triggers import respond
from features.quarantine import Quarantine
from lifecycle.workspace import Workspace
from tests.lifecycle.command_runs import Ended, Run, ran

BAD = "sku-1,shop-1,2026-02-01,many\nsku-2,shop-0,2026-02-02,-3\nsku-3,shop-1,=1+1,4\n"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command of `seatrial` as the console script does; `clock` replaces the yard's."""

    def command(yard: Any, *arguments: object, clock: str | None = None) -> Ended:
        given = yard.environment() | {"SEATRIAL_ACTOR": "ann"} | ({} if clock is None else {"SEATRIAL_CLOCK": clock})
        return ran(monkeypatch, capsys, given, arguments)

    return command


@pytest.fixture
def dirty(run: Run, yard: Any) -> Any:
    """A yard with 1,117 good rows and 3 bad ones ingested."""
    lines = yard.file.read_text().splitlines(keepends=True)
    days = ("sku-1,shop-1,2026-02-01", "sku-2,shop-0,2026-02-02", "sku-3,shop-1,2026-02-01")
    yard.file.write_text("".join(line for line in lines if not line.startswith(days)) + BAD)
    assert run(yard, "ingest", yard.mapping, yard.file, "--json").code == 0
    return yard


def groups(run: Run, yard: Any, *more: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = run(yard, "quarantine", "list", "--json", *more).json["groups"]
    return {group["rule"]: {"group": name, **group} for name, group in found.items()}


def test_list_groups_refused_rows_and_adds_them_up(run: Run, dirty: Any) -> None:
    """Each broken rule is a group with count and sample; rows in = landed + quarantined + discarded."""
    listed = groups(run, dirty)
    assert sorted(rule.partition(":")[0] for rule in listed) == ["event_time", "quantity", "quantity"]
    assert [group["open"] for group in listed.values()] == [1, 1, 1]
    rows = run(dirty, "quarantine", "list", "--json").json["rows"]["demand"]
    assert rows == {"in": 1120, "landed": 1117, "quarantined": 3, "discarded": 0, "released": 0}
    assert "quantity: wanted a number" in run(dirty, "quarantine", "list").out


def test_show_exports_cells_that_no_spreadsheet_runs(run: Run, dirty: Any) -> None:
    """`show` prints rows with reasons; its CSV has every field, and a formula in it is made text."""
    listed = groups(run, dirty)
    group = next(group["group"] for rule, group in listed.items() if rule.startswith("event_time"))
    shown = run(dirty, "quarantine", "show", group, "--json").json
    assert (shown["rows"], [row["state"] for row in shown["shown"].values()]) == (1, ["open"])
    target = dirty.root / "bad.csv"
    assert run(dirty, "quarantine", "show", group, "--csv", target).code == 0
    (row,) = csv.DictReader(target.read_text(encoding="utf-8-sig").splitlines())
    assert row["event_time"] == "'=1+1"
    assert row["sku"] == "sku-3"
    assert run(dirty, "quarantine", "show", "zzz").code == 2


def test_corrected_rows_go_through_the_checks_and_land(run: Run, dirty: Any) -> None:
    """Export, put right, release: known from the release on, by whom and why on record; again changes nothing."""
    group = next(group["group"] for rule, group in groups(run, dirty).items() if "at least 0" in rule)
    target = dirty.root / "fix.csv"
    run(dirty, "quarantine", "show", group, "--csv", target)
    as_it_is = run(dirty, "quarantine", "release", group, "--reason", "try", "--json")
    assert (as_it_is.code, as_it_is.json["released"], as_it_is.json["refused_again"]) == (1, 0, 1)
    target.write_text(target.read_text(encoding="utf-8-sig").replace("-3", "3"))
    words = ("quarantine", "release", group, "--corrections", target, "--reason", "sign", "--json")
    dry = run(dirty, *words, "--dry-run")
    assert (dry.json["released"], dry.json["rows"]["demand"]["landed"]) == (1, 1117)
    done = run(dirty, *words)
    assert (done.code, done.json["released"]) == (0, 1)
    assert done.json["rows"]["demand"] == {"in": 1120, "landed": 1118, "quarantined": 2, "discarded": 0, "released": 1}
    again = run(dirty, *words)
    assert (again.code, again.json["released"], again.json["decided_before"]) == (0, 0, 1)
    ws = Workspace(dirty.settings)
    landed = ws.landing.read("demand").iloc[-1]
    assert (landed["quantity"], iso(landed["known_at"].to_pydatetime())) == (3.0, done.json["at"])
    (note,) = Quarantine(ws.landing).history("demand")
    assert (note["actor"], note["why"]) == ("ann", "sign")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("event_id\nx\n", "a column 'id'"),
        ("id,quantti\nx,1\n", "did you mean 'quantity'"),
        ("id,quantity\nnobody,1\n", "'nobody'"),
        ("id,quantity\nnobody\n", "2 cells"),
        ('id,quantity\n"x,1\n', "a CSV in UTF-8"),
    ],
)
def test_a_broken_corrections_file_changes_nothing(run: Run, dirty: Any, content: str, words: str) -> None:
    """A file without ids, with an unknown column or row, or cut off, ends with 2 and names it; nothing is released."""
    group = next(iter(groups(run, dirty).values()))["group"]
    path = dirty.root / "fix.csv"
    path.write_text(content)
    ended = run(dirty, "quarantine", "release", group, "--corrections", path, "--reason", "x")
    assert (ended.code, words in ended.err) == (2, True), ended.err
    assert run(dirty, "quarantine", "list", "--json").json["rows"]["demand"]["quarantined"] == 3


def test_discarded_rows_are_decided_and_still_there(run: Run, dirty: Any) -> None:
    """Discard needs a reason, leaves the open list, and shows under --all; nothing is deleted."""
    group = next(iter(groups(run, dirty).values()))["group"]
    assert run(dirty, "quarantine", "discard", group).code == 2
    done = run(dirty, "quarantine", "discard", group, "--reason", "a test row", "--json")
    assert (done.code, done.json["discarded"]) == (0, 1)
    assert len(groups(run, dirty)) == 2
    assert len(groups(run, dirty, "--all")) == 3
    shown = run(dirty, "quarantine", "show", group, "--json").json["shown"]
    assert [row["state"] for row in shown.values()] == ["discarded"]


def test_freshness_tells_sources_and_views_and_its_exit_code(run: Run, sailed: Any) -> None:
    """Fresh at the voyage's end: 0. Ten days later: 1, the source's age has grown by ten days, and it says why."""
    now = run(sailed.yard, "features", "freshness", "--json")
    (source,) = now.json["sources"]
    assert (now.code, source["state"], source["reasons"]) == (0, "safe_for_automation", [])
    (view,) = now.json["views"]
    assert (view["view"], view["online_until"] is not None, view["row_age_s"] >= 0) == ("demand_history", True, True)
    later = iso(sailed.story.shares[-1][0] + timedelta(days=10))
    stopped = run(sailed.yard, "features", "freshness", "--model", "demand", "--json", clock=later)
    (old,) = stopped.json["sources"]
    assert (stopped.code, old["state"]) == (1, "unavailable")
    assert old["age_s"] >= source["age_s"] + 9 * 86400
    words = run(sailed.yard, "features", "freshness", clock=later)
    assert words.code == 1
    assert "tiny demand: nothing came for" in words.out
    assert run(sailed.yard, "features", "freshness", "--model", "demnad").code == 2


def test_looking_at_freshness_makes_nothing(run: Run, yard: Any) -> None:
    """On an empty workspace the needed kind is unavailable in words, the exit code is 1, and no store is made."""
    ended = run(yard, "features", "freshness", "--json")
    assert ended.code == 1
    assert ended.json["sources"][0]["reasons"] == ["nothing of kind demand has ever landed"]
    assert not list(yard.settings.home.rglob("*"))


def test_a_stopped_source_vetoes_a_retraining(sailed: Any) -> None:
    """A retraining wanted by age is held back, with the source's words, once the source has stopped; not before."""
    end = sailed.story.shares[-1][0]
    ws = Workspace(sailed.yard.settings, SetClock(end))
    state = ws.registrar.state("demand")
    assert ws.sources.unsafe("demand_v1", end) == ()
    stopped = end + timedelta(days=30)
    unsafe = ws.sources.unsafe("demand_v1", stopped)
    policy = ws.policy("demand")
    since = state.champion_since
    assert since is not None
    wanted = respond([], [], since, policy, stopped)
    held = respond([], [], since, policy, stopped, unsafe=unsafe)
    assert (wanted.response, held.response) == (Response.RETRAIN, Response.ALERT)
    assert "tiny demand: nothing came for" in held.reason
