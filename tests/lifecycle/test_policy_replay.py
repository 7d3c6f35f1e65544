"""Recorded history under another policy: the recorded one comes out as it was, others differ where they must."""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from contracts.decisions import Rung
from contracts.errors import InputInvalid, UsageError
from contracts.policy import Policy
from contracts.rollout import RowKind
from lifecycle.policy_replay import Replayed, as_plain, replay_policy
from lifecycle.policy_replay_course import Course, Suppose, sail_again
from lifecycle.policy_replay_history import History
from lifecycle.policy_replay_scores import Scores
from lifecycle.policy_replay_side import Side, replayed_side
from lifecycle.policy_tables import merged, replay_page, verdict
from lifecycle.progress import quiet
from models.load import load_model
from serving.assemble import columns_for
from tests.lifecycle.command_runs import ran
from tests.lifecycle.policy_yard import DAYS, END, MODEL, PER_DAY, SERVICE, START, PolicyYard, sailed_yard

DECISIONS = DAYS * PER_DAY
Runs = Callable[..., tuple[Course, Side]]


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> PolicyYard:
    """A recorded history; tests leave it as it is."""
    return sailed_yard(tmp_path_factory.mktemp("policy") / "yard")


@pytest.fixture(scope="module")
def recorded(yard: PolicyYard) -> Policy:
    """The policy that history was made under."""
    return yard.workspace().policy(MODEL)


@pytest.fixture(scope="module")
def same(yard: PolicyYard, recorded: Policy) -> Replayed:
    """The recorded policy, replayed."""
    return replay_policy(yard.workspace(), recorded)


@pytest.fixture(scope="module")
def under(yard: PolicyYard, same: Replayed) -> Runs:
    """One course of the whole history under a policy: history is read and scored once for all tests."""
    ws = yard.workspace()
    history = History(ws, same.policy)
    scores = Scores(history.records, ws.declarations, SERVICE)
    scores.score(history.models(), quiet)

    def run(policy: Policy, **supposed: Any) -> tuple[Course, Side]:
        course = sail_again(history, scores, policy, same.span, Suppose(**supposed), quiet)
        return course, replayed_side(course, same.span)

    return run


@pytest.fixture(scope="module")
def stricter(yard: PolicyYard, recorded: Policy) -> Replayed:
    """No candidate can prove such a lead over the champion; everything has a price."""
    costs = {"currency": "EUR", "loss": 10.0, "retrain": 7.0, "review": 3.0, "alarm": 1.0}
    return replay_policy(yard.workspace(), other(recorded, gate__beat__champion=0.9, business__costs=costs))


def other(policy: Policy, **changes: Any) -> Policy:
    """The policy with dotted keys (two underscores for a dot) set otherwise."""
    tree = policy.model_dump(mode="json")
    for key, value in changes.items():
        *path, last = key.split("__")
        place = tree
        for part in path:
            place = place[part]
        place[last] = value
    return Policy.model_validate(tree)


def words(side: Side) -> list[str]:
    """Moves and retrainings of a side, in order."""
    return [one.words for one in side.happenings if one.kind != "alert"]


def days(side: Side) -> dict[str, datetime]:
    """When each of them happened first."""
    return {one.words: one.at for one in reversed(side.happenings)}


def test_history_holds_a_whole_life(same: Replayed) -> None:
    """What the other tests stand on: a promotion by trial, and a candidate that its gate sends away."""
    told = words(same.happened)
    for wanted in ("promoted v1", "shadow started v2", "canary step v2 to 20%", "promoted v2", "gated v3 fail"):
        assert wanted in told, told
    assert same.happened.answered().keys() == {"v1", "v2"}


def test_the_recorded_policy_comes_out_as_it_was(same: Replayed) -> None:
    """Every move on its day, every window with its loss, every retraining, and every answer to the last bit."""
    check, windows = same.check, len(same.happened.windows)
    assert check.moves[0] == check.moves[1] == len([w for w in words(same.happened) if w != "retraining"]) >= 9
    assert (check.windows, check.retrains, check.answers) == ((windows, windows), (3, 3), (DECISIONS, DECISIONS))
    assert (check.differing, check.causes) == ((), ())
    assert [w.loss for w in same.course.windows] == [w.loss for w in same.happened.windows]
    assert same.losses["answered_otherwise"] == 0
    assert verdict(same).startswith(f"All {same.losses['decisions']} decisions with a known outcome would have been")


def test_decisions_are_routed_and_answered_as_recorded(same: Replayed) -> None:
    """Under the recorded policy each decision takes the same arm to the same answer, in shadow, canary and after."""
    assert len(same.course.records) == len(same.happened.records) == DECISIONS
    for again, before in zip(same.course.records, same.happened.records, strict=True):
        assert (again.decision_id, again.route.arm, again.route.version) == (
            before.decision_id,
            before.route.arm,
            before.route.version,
        )
        assert (again.answer.rung, again.answer.probability) == (before.answer.rung, before.answer.probability)


def test_other_answers_are_those_that_the_version_gives(stricter: Replayed, yard: PolicyYard) -> None:
    """With the second version kept in the yard, its decisions get what the first version says, not a guess."""
    assert set(stricter.replayed.answered()) == {"v1"}
    ws = yard.workspace()
    model = load_model(ws.artifacts.path(MODEL, "v1"))
    served = [r for r in stricter.happened.records if r.answer.version == "v2"]
    again = {record.decision_id: record.answer for record in stricter.course.records}
    assert len(served) > 40
    for record in served[::10]:
        columns = columns_for("risk", record.request, record.views, SERVICE, ws.declarations, record.as_of, 1)
        answer = again[record.decision_id]
        assert (answer.rung, answer.version) == (Rung.CHAMPION, "v1")
        assert answer.probability == float(model.predict(columns)[0])  # type: ignore[arg-type]


def test_loss_and_cost_are_measured_on_both_sides(stricter: Replayed) -> None:
    """The same matured decisions, the same prices; keeping the worse version costs more, and the bounds say so."""
    loss = stricter.losses
    assert 0 < loss["answered_otherwise"] < loss["decisions"] <= DECISIONS
    assert loss["happened"] < loss["replayed"]
    assert loss["better_by_low"] <= loss["better_by"] < 0
    frame = stricter.happened.losses
    total = float(frame["loss"][np.isfinite(frame["loss"])].sum())
    assert stricter.cost_happened["loss"] == pytest.approx(10.0 * total)
    assert stricter.cost_happened["retrain"] == 21.0
    for costs in (stricter.cost_happened, stricter.cost_replayed):
        assert costs["total"] == pytest.approx(sum(value for name, value in costs.items() if name != "total"))


def test_shorter_steps_promote_earlier(under: Runs, recorded: Policy, same: Replayed) -> None:
    """A shorter shadow and bake bring the canary earlier than it came, and never before their own bounds."""
    shadow = {"min_decisions": 20, "min_days": 1}
    _, side = under(other(recorded, rollout__shadow=shadow, rollout__canary__bake="1d"))
    first, before = days(side), days(same.happened)
    began, step = "shadow started v2", "canary step v2 to 20%"
    assert first[began] == before[began]
    assert first[began] + timedelta(days=1) <= first[step] < before[step]
    assert first["promoted v2"] <= before["promoted v2"]
    assert side.answered()["v2"] > same.happened.answered()["v2"]


def test_a_retraining_without_a_candidate_is_said(under: Runs, recorded: Policy) -> None:
    """Who asks for a retraining at another moment gets no invented candidate, and the report says so."""
    course, _ = under(other(recorded, drift__every="3d", retrain__when__max_age="3d"))
    told = [text for _, text in course.notes]
    assert any(text.startswith("a retraining is asked for, no such candidate exists") for text in told), told


def test_a_candidate_that_nobody_would_have_trained_is_said(under: Runs, recorded: Policy) -> None:
    """It is tried all the same, unless only candidates that were asked for are to be."""
    seldom = other(recorded, retrain__when__max_age="90d")
    course, tried = under(seldom)
    assert any("history trained v2 here, this policy would not have; it is tried" in t for _, t in course.notes)
    assert "promoted v2" in words(tried)
    assert tried.retrains == 2
    course, left_out = under(seldom, only_asked=True)
    assert [text for _, text in course.notes if "left out" in text]
    assert words(left_out) == ["gated v1 pass", "promoted v1"]
    assert left_out.retrains == 0


def test_a_move_waits_for_people_who_did_not_agree(under: Runs, recorded: Policy) -> None:
    """Where the policy asks a person, the move waits; supposed to agree two days later, they do and it goes on."""
    asking = other(recorded, automate__promote_to_canary="approval", gate__approvals__by=["planner"])
    course, side = under(asking)
    assert [text.split(":")[0] for _, text in course.waits] == ["step_canary of v2 waits for a person"]
    assert not [text for text in words(side) if text.startswith("canary step")]
    course, side = under(asking, approve_after=timedelta(days=2))
    assert days(side)["canary step v2 to 20%"] - course.waits[0][0] == timedelta(days=2)
    assert side.reviews == 1


def test_a_cut_history_is_told_alike(yard: PolicyYard, recorded: Policy, same: Replayed) -> None:
    """What happens by a day does not hang on what came after it, and a span may begin in the middle of a rollout."""
    cut = days(same.happened)["canary step v2 to 20%"] + timedelta(hours=12)
    whole = [(one.at, one.words) for one in same.replayed.happenings]
    early = replay_policy(yard.workspace(), recorded, until=cut)
    assert [(one.at, one.words) for one in early.replayed.happenings] == [pair for pair in whole if pair[0] <= cut]
    late = replay_policy(yard.workspace(), recorded, since=cut)
    assert [(one.at, one.words) for one in late.replayed.happenings] == [pair for pair in whole if pair[0] >= cut]
    assert (late.check.moves[0], late.check.differing) == (late.check.moves[1], ())


def test_a_criterion_that_history_never_measured_is_left_out_and_named(
    under: Runs, recorded: Policy, same: Replayed
) -> None:
    """Latency and stability of versions that were registered without them cannot be judged, and hold nobody."""
    unmeasured = {"gate__predict": {"p99_ms": 5.0}, "gate__stability": {"noise": 0.01, "max_change": 0.1}}
    course, side = under(other(recorded, **unmeasured))
    told = [text for _, text in course.notes]
    for key in ("gate.predict.p99_ms", "gate.stability"):
        assert f"{key} of v1 was not measured then: its gate is judged without it" in told
    assert words(side) == words(same.happened)


def test_the_workspace_is_left_as_it_was(yard: PolicyYard, stricter: Replayed) -> None:
    """Ledger, log, artifacts, snapshots and windows are byte for byte what they were."""

    def digest() -> dict[str, str]:
        home = yard.settings.home
        files = [path for path in sorted(home.rglob("*")) if path.is_file() and "lock" not in path.name]
        kept = [path for path in files if path.suffix not in (".db-shm", ".db-wal", ".mdb")]
        return {str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}

    before = digest()
    replay_policy(yard.workspace(), stricter.policy)
    assert digest() == before


def test_what_people_did_is_done_again_where_it_can_be(yard: PolicyYard, recorded: Policy, tmp_path: Path) -> None:
    """A rollback by hand is repeated under the recorded policy; where there is nobody to roll back, that is said."""
    shutil.copytree(yard.root, tmp_path / "copy")
    copied = PolicyYard(tmp_path / "copy")
    with copied.workspace(END + timedelta(hours=1)).closing() as ws:
        ws.registrar.rollback(MODEL, recorded, "complaints")
    ws, until = copied.workspace(), END + timedelta(days=1)
    found = replay_policy(ws, recorded, until=until)
    assert (found.check.moves[0], words(found.replayed)[-1]) == (found.check.moves[1], "rolled back v2")
    kept = replay_policy(ws, other(recorded, gate__beat__champion=0.9), until=until)
    assert any("recorded rolled_back of v2, which is not possible here" in text for _, text in kept.course.notes)


def test_the_check_names_what_does_not_come_out(yard: PolicyYard, recorded: Policy, tmp_path: Path) -> None:
    """A history that another policy made is not passed off as reproduced: the moves that differ are named."""
    shutil.copytree(yard.root, tmp_path / "copy")
    copied = PolicyYard(tmp_path / "copy")
    with copied.workspace().closing() as ws:
        ws.registrar.record_policy(other(recorded, gate__beat__champion=0.9), "stricter")
    found = replay_policy(copied.workspace(), recorded)
    assert found.check.moves[0] < found.check.moves[1]
    assert any("promoted v2 happened, not in the replay" in text for text in found.check.differing)
    assert any("2 policies were recorded" in cause for cause in found.check.causes)


def test_what_cannot_be_replayed_is_refused(yard: PolicyYard, recorded: Policy) -> None:
    """Other features, and a span in which nothing is recorded."""
    with pytest.raises(InputInvalid, match="features 'late_delivery_v1', as recorded"):
        replay_policy(yard.workspace(), other(recorded, features="other_v1"))
    at = datetime(2020, 1, 1, tzinfo=UTC)
    with pytest.raises(UsageError, match="nothing is recorded from 2020-01-01"):
        replay_policy(yard.workspace(), recorded, since=at, until=at + timedelta(days=1))


def test_a_span_without_decisions_measures_nothing(yard: PolicyYard, recorded: Policy) -> None:
    """An hour in which nobody asked has no loss to compare, and the page says so in place of a figure."""
    found = replay_policy(yard.workspace(), recorded, since=START, until=START + timedelta(hours=1))
    assert (found.losses["decisions"], found.happened.answered()) == (0, {})
    assert verdict(found).startswith("No decision of the span has a known outcome")
    Console(file=io.StringIO()).print(replay_page(found))
    assert as_plain(found)["loss"]["replayed"] is None


def test_both_sides_stand_beside_each_other(stricter: Replayed) -> None:
    """The page shows changes, a line a day with both sides, the sums with costs, and the self-check at its end."""
    console = Console(width=180, record=True, file=io.StringIO())
    console.print(replay_page(stricter))
    text = console.export_text()
    for part in (
        "gate.beat.champion",
        "under this policy",
        "promoted v2",
        "cost: total",
        "policy replayed: ",
    ):
        assert part in text, part
    rows = merged(stricter.happened.happenings, stricter.replayed.happenings)
    assert sum(left is not None and right is not None for _, left, right in rows) >= 2
    assert sum(right is None for _, _, right in rows) >= 2
    plain = as_plain(stricter)
    assert plain["self_check"]["moves"] == list(stricter.check.moves)
    assert any(change.startswith("gate.beat.champion: -0.05 -> 0.9 (stricter") for change in plain["policy"]["changes"])


def test_the_command_replays_a_file(
    yard: PolicyYard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`seatrial policy replay` tries a file on a span and prints one JSON object; another model's file is refused."""
    text = (yard.settings.policies / f"{MODEL}.yaml").read_text()
    tried = tmp_path / "new.yaml"
    tried.write_text(text.replace("champion: -0.05", "champion: 0.9"))
    span = ("--from", "2026-03-02", "--to", f"{END:%Y-%m-%d}")
    arguments = ("policy", "replay", "late-delivery", "--policy", tried, *span, "--json")
    ended = ran(monkeypatch, capsys, yard.environment(), arguments)
    assert ended.code == 0, ended.err
    assert ended.json["replayed"]["answered_by"] == {"v1": DECISIONS}
    assert ended.json["to"].startswith(f"{END:%Y-%m-%d}")
    tried.write_text(text.replace("model: late_delivery", "model: other"))
    refused = ran(monkeypatch, capsys, yard.environment(), arguments)
    assert (refused.code, "wanted one of late-delivery" in refused.err) == (2, True)


def test_adopting_a_policy_is_a_row(
    yard: PolicyYard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`seatrial policy adopt` records the file with its reason, once; a file with errors is refused."""
    shutil.copytree(yard.root, tmp_path / "copy")
    copied = PolicyYard(tmp_path / "copy")
    path = copied.settings.policies / f"{MODEL}.yaml"
    text = path.read_text()
    path.write_text(text.replace("incumbent: -0.9", "incumbent: 0.0").replace("alpha: 0.2", "alpha: 0.05"))
    adopt = ("policy", "adopt", MODEL, "--reason", "agreed on Monday", "--json")

    def changes() -> list[str]:
        rows = copied.workspace().ledger.rows(MODEL)
        return [row.reason for row in rows if row.kind is RowKind.POLICY_CHANGED]

    before = changes()
    for _ in range(2):
        ended = ran(monkeypatch, capsys, copied.environment(), adopt)
        assert ended.code == 0, ended.err
    assert changes() == [*before, "agreed on Monday"]
    path.write_text(text)
    refused = ran(monkeypatch, capsys, copied.environment(), adopt)
    assert (refused.code, "worse than the incumbent rule" in refused.err) == (1, True)
    assert changes() == [*before, "agreed on Monday"]
