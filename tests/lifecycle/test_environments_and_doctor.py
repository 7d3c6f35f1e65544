"""A version carried from one environment to the next by commands, and the doctor's look at a workspace."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from registry.ledger import verify
from registry.sql_ledger import SqlLedger
from tests.lifecycle.command_runs import Ended, ran

Act = Callable[..., Ended]


@pytest.fixture
def dev(sailed: Any, tmp_path: Path) -> Path:
    """A copy of the sailed workspace, which is dev; prod is an empty folder beside it."""
    home = tmp_path / "dev-home"
    shutil.copytree(sailed.yard.settings.home, home)
    places = f"policies: {sailed.yard.settings.policies}, features: {sailed.yard.settings.features}"
    (tmp_path / "environments.yaml").write_text(
        "environments:\n"
        f"  - {{name: dev, home: {home}, {places}}}\n"
        f"  - {{name: staging, home: {tmp_path / 'staging-home'}, {places}, requires: champion}}\n"
        f"  - {{name: prod, home: {tmp_path / 'prod-home'}, {places}, requires: champion}}\n"
    )
    return home


@pytest.fixture
def act(
    dev: Path, sailed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Act:
    """Runs a command in one of the environments."""

    def run(environment: str, *arguments: object) -> Ended:
        places = {"SEATRIAL_ENVIRONMENTS": str(tmp_path / "environments.yaml"), "SEATRIAL_ENVIRONMENT": environment}
        clock = {"SEATRIAL_CLOCK": sailed.yard.environment()["SEATRIAL_CLOCK"]}
        return ran(monkeypatch, capsys, places | clock, arguments)

    return run


def test_a_version_is_carried_with_its_evidence_and_serves_after_its_trial_there(act: Act, tmp_path: Path) -> None:
    """The champion of dev comes to staging as it is, once; there its gate passes again and it takes office."""
    looked = act("dev", "environment", "carry", "demand", "--version", "v1", "--to", "staging", "--dry-run", "--json")
    assert (looked.code, looked.json["gate_here"]) == (0, "pass")
    carried = act("dev", "environment", "carry", "demand", "--version", "v1", "--to", "staging", "--json")
    assert (carried.code, carried.json["version_here"], carried.json["stage_here"]) == (0, "v1", "candidate")
    assert act("dev", "environment", "carry", "demand", "--version", "v1", "--to", "staging").code == 0
    rows = SqlLedger(f"sqlite:///{tmp_path / 'staging-home' / 'ledger.db'}").rows("demand")
    verify(rows)
    assert [row.kind.value for row in rows] == ["policy_changed", "registered", "gated"]
    rows = rows[1:]
    there = SqlLedger(f"sqlite:///{tmp_path / 'dev-home' / 'ledger.db'}").rows("demand")
    first = next(row for row in there if row.kind.value == "registered")
    assert rows[0].payload["manifest_sha256"] == first.payload["manifest_sha256"]
    assert rows[0].payload["carried"]["environment"] == "dev"
    assert rows[0].payload["carried"]["rows"][0]["hash"] == first.hash
    assert act("staging", "rollout", "start", "demand", "--json").json["state"]["champion"] == "v1"
    listed = act("staging", "environment", "list", "--json").json
    assert (listed["staging"]["this_one"], listed["staging"]["champions"]) == (True, {"demand": "v1"})


def test_a_bundle_goes_where_no_network_goes(act: Act, tmp_path: Path) -> None:
    """Packed in dev and taken in staging; cut by a byte it is refused and leaves no trace."""
    bundle = tmp_path / "bundle"
    packed = act("dev", "environment", "pack", "demand", "--version", "v1", "--out", bundle, "--json")
    assert packed.code == 0
    spoiled = tmp_path / "spoiled"
    shutil.copytree(bundle, spoiled)
    (spoiled / "artifact" / "spec.json").write_bytes((bundle / "artifact" / "spec.json").read_bytes()[:-1])
    refused = act("staging", "environment", "take", spoiled)
    assert (refused.code, "spec.json" in refused.err) == (1, True)
    assert not (tmp_path / "staging-home" / "artifacts").exists()
    taken = act("staging", "environment", "take", bundle, "--json")
    assert (taken.code, taken.json["from"]) == (0, "dev v1")


def test_environments_are_passed_in_order(act: Act) -> None:
    """Prod takes from staging only, and an environment that does not exist is named with the nearest."""
    skipped = act("dev", "environment", "carry", "demand", "--version", "v1", "--to", "prod")
    assert (skipped.code, "takes versions from staging" in skipped.err) == (2, True)
    unknown = act("dev", "environment", "carry", "demand", "--version", "v1", "--to", "stagin")
    assert (unknown.code, "did you mean 'staging'" in unknown.err) == (2, True)


def test_the_doctor_finds_what_is_wrong_and_says_what_to_do(act: Act, dev: Path) -> None:
    """A healthy workspace ends with 0; lost files and an old snapshot are named with what to do, and end with 1."""
    healthy = act("dev", "doctor", "--json")
    assert (healthy.code, healthy.json["healthy"]) == (0, True), healthy.out
    shutil.rmtree(dev / "artifacts" / "demand" / "v1")
    snapshot = dev / "serving" / "demand.json"
    snapshot.write_text(json.dumps(json.loads(snapshot.read_text()) | {"revision": 0}))
    ended = act("dev", "doctor", "--problems", "--json")
    wrong = {one["subject"]: one for one in ended.json["findings"] if one["level"] == "wrong"}
    assert ended.code == 1
    assert "rollout rollback" in wrong["demand v1 (champion)"]["remedy"]
    assert "seatrial reconcile" in wrong["demand in service"]["remedy"]


def test_the_doctor_tells_a_store_that_is_down_from_one_that_is_wrong(
    dev: Path, sailed: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An MLflow that does not answer ends with 3, and everything else is still looked at."""
    environment = sailed.yard.environment() | {"SEATRIAL_HOME": str(dev)}
    environment |= {"SEATRIAL_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    ended = ran(monkeypatch, capsys, environment, ["doctor", "--json"])
    assert ended.code == 3
    levels = {one["subject"]: one["level"] for one in ended.json["findings"]}
    assert (levels["mlflow"], levels["demand in service"]) == ("down", "ok")


def test_the_doctor_sees_what_only_the_content_tells(act: Act, dev: Path) -> None:
    """A snapshot of the right revision that names another champion is wrong, not served "as the ledger says"."""
    snapshot = dev / "serving" / "demand.json"
    plain = json.loads(snapshot.read_text())
    plain["champion"]["version"] = "v9"
    snapshot.write_text(json.dumps(plain))
    wrong = {one["subject"]: one for one in act("dev", "doctor", "--problems", "--json").json["findings"]}
    assert wrong["demand in service"]["level"] == "wrong"
    assert "seatrial reconcile" in wrong["demand in service"]["remedy"]


def test_the_doctor_looks_at_models_without_a_policy_too(
    dev: Path, sailed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The policy file is gone and so are the champion's files: both are said."""
    (tmp_path / "none").mkdir()
    shutil.rmtree(dev / "artifacts" / "demand" / "v1")
    environment = sailed.yard.environment() | {"SEATRIAL_HOME": str(dev), "SEATRIAL_POLICIES": str(tmp_path / "none")}
    ended = ran(monkeypatch, capsys, environment, ["doctor", "--json"])
    levels = {one["subject"]: one["level"] for one in ended.json["findings"]}
    assert (ended.code, levels["demand"], levels["demand v1 (champion)"]) == (1, "warning", "wrong")
