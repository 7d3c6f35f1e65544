"""`seatrial policy check` and `diff`, and the schema that editors are given."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.policy import Policy
from tests.lifecycle.command_runs import Ended, ran

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., Ended]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A workspace's folder with the shipped policies and declarations, in which nothing has happened."""
    (tmp_path / "policies").mkdir()
    for path in (ROOT / "policies").glob("*.yaml"):
        (tmp_path / "policies" / path.name).write_bytes(path.read_bytes())
    return tmp_path


@pytest.fixture
def run(files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a policy command over those files."""
    environment = {
        "SEATRIAL_HOME": str(files / "home"),
        "SEATRIAL_POLICIES": str(files / "policies"),
        "SEATRIAL_FEATURES": str(ROOT / "features" / "repo"),
    }
    return lambda *arguments: ran(monkeypatch, capsys, environment, ("policy", *arguments))


def edited(files: Path, old: str, new: str, name: str = "late_delivery") -> Path:
    """One policy file with a text replaced."""
    path = files / "policies" / f"{name}.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


def test_the_shipped_policies_pass(run: Run, files: Path) -> None:
    """No error and no warning in what is shipped; a check writes nothing, not even an empty workspace."""
    ended = run("check", "--strict", "--json")
    assert ended.code == 0, ended.out
    assert ended.json["passed"] is True
    assert [(one["model"], one["errors"], one["warnings"]) for one in ended.json["files"]] == [
        ("demand", 0, 0),
        ("late_delivery", 0, 0),
    ]
    assert not (files / "home").exists()


def test_a_finding_names_file_line_reason_and_remedy(run: Run, files: Path) -> None:
    """A person reads where it stands, what is so, why it matters and what to do; errors end with exit code 1."""
    path = edited(files, "key: lane", "key: lanes")
    line = next(n for n, text in enumerate(path.read_text().splitlines(), start=1) if "key: lanes" in text)
    ended = run("check", "late-delivery")
    assert ended.code == 1
    assert f"late_delivery.yaml:{line}: error: rollout.canary.key: there is no canary key 'lanes'" in ended.out
    assert "why: " in ended.out
    assert "do:  did you mean 'lane'?" in ended.out
    assert "1 error, 0 warnings" in ended.out


def test_warnings_fail_only_when_strict(run: Run, files: Path) -> None:
    """An unsafe policy works, so a warning lets the check pass unless it is asked to be strict."""
    path = edited(files, "alpha: 0.05", "alpha: 0.3")
    assert run("check", str(path)).code == 0
    ended = run("check", str(path), "--strict", "--json")
    assert (ended.code, ended.json["passed"]) == (1, False)
    warned = [one for one in ended.json["files"][0]["findings"] if one["severity"] == "warning"]
    assert [one["name"] for one in warned] == ["alpha-too-high"]
    assert isinstance(warned[0]["line"], int)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("min_days: 7", "min_dys: 7", "did you mean 'min_days'?"),
        ("model: late_delivery", "model: [", "cannot be read"),
        ("confidence: 0.95", "confidence: 2", "less than 1"),
    ],
)
def test_a_broken_file_is_a_finding(run: Run, files: Path, old: str, new: str, words: str) -> None:
    """A file that breaks the schema fails the check like any other error, beside files that are sound."""
    edited(files, old, new)
    ended = run("check")
    assert ended.code == 1
    assert words in ended.out
    assert "demand.yaml: 0 errors" in ended.out


def test_diff_of_two_files(run: Run, files: Path, tmp_path: Path) -> None:
    """Changed keys with both values and what they mean; two files that decide the same are said to."""
    before = tmp_path / "before.yaml"
    before.write_bytes((files / "policies" / "late_delivery.yaml").read_bytes())
    assert "decide the same" in run("diff", str(before), "late_delivery").out
    edited(files, "bake: 4d", "bake: 6d")
    ended = run("diff", str(before), "late-delivery", "--json")
    assert ended.code == 0
    assert [(one["key"], one["old"], one["new"], one["way"]) for one in ended.json["changes"]] == [
        ("rollout.canary.bake", "4d", "6d", "stricter")
    ]
    assert "stricter" in run("diff", str(before), "late_delivery").out


def test_diff_with_nothing_on_record_is_refused(run: Run, files: Path) -> None:
    """A model without a recorded policy has nothing to be compared with, and the answer says what to do."""
    ended = run("diff", "late_delivery")
    assert (ended.code, "seatrial policy adopt late_delivery" in ended.err) == (2, True)
    assert run("diff", "nothing").code == 2
    assert run("diff", str(files / "policies" / "demand.yaml")).code == 2


def test_the_published_schema_is_the_code() -> None:
    """docs/schema/policy.json is what `seatrial schema policy` prints, and every shipped policy names it."""
    published = ROOT / "docs" / "schema" / "policy.json"
    wanted = Policy.model_json_schema()
    assert json.loads(published.read_text()) == wanted, (
        "write it anew: seatrial schema policy > docs/schema/policy.json"
    )
    for path in (ROOT / "policies").glob("*.yaml"):
        first = path.read_text().splitlines()[0]
        assert first.startswith("# yaml-language-server: $schema=")
        assert (path.parent / first.partition("$schema=")[2]).resolve() == published
