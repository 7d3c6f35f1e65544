"""The command line: exit codes, messages, one JSON object, and what --dry-run leaves alone."""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from contracts.policy import load_policies
from lifecycle.commands import app
from tests.lifecycle.command_runs import Ended, Run, ran

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("pandas", "feast", "mlflow", "lightgbm", "evidently", "statsforecast", "bentoml", "optuna", "duckdb")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command of `seatrial` as the console script does, on a yard's workspace."""

    def command(yard: Any, *arguments: object) -> Ended:
        return ran(monkeypatch, capsys, yard.environment(), arguments)

    return command


def files_in(folder: Path) -> dict[str, bytes]:
    """Every file's content but SQLite's and LMDB's side files, which a reader may touch."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): path.read_bytes() for path in found if not path.name.endswith(("-wal", "-shm", "lock.mdb"))}


def test_help_loads_nothing_heavy() -> None:
    """`python -m lifecycle.cli --help` lists the commands, having imported none of the heavy libraries."""
    code = (
        "import sys; sys.argv = ['seatrial', '--help']\n"
        "import runpy\n"
        "try:\n    runpy.run_module('lifecycle.cli', run_name='__main__')\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        f"print('LOADED', sorted(set({HEAVY!r}) & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert "LOADED []" in done.stdout
    for command in ("ingest", "features", "train", "rollout", "ledger", "replay", "monitor", "demo", "schema"):
        assert command in done.stdout


def test_every_command_has_help(run: Run, yard: Any) -> None:
    """Each command and group explains itself and ends with 0."""
    names = [[command.name] for command in app.registered_commands] + [[group.name] for group in app.registered_groups]
    for group in app.registered_groups:
        assert group.typer_instance is not None
        names += [[group.name, command.name] for command in group.typer_instance.registered_commands]
    assert len(names) > 15
    for words in names:
        ended = run(yard, *words, "--help")
        assert (ended.code, "Usage" in ended.out) == (0, True), words


def test_a_misspelt_policy_key_is_named_with_its_line(run: Run, yard: Any) -> None:
    """A misspelt key ends with 2 and names file, line and the nearest key; it is no traceback."""
    path = yard.root / "policies" / "demand.yaml"
    path.write_text(path.read_text().replace("cooldown:", "cooldwon:"))
    line = 1 + [("cooldwon" in text) for text in path.read_text().splitlines()].index(True)
    ended = run(yard, "rollout", "status", "demand")
    assert ended.code == 2
    assert f"demand.yaml:{line}" in ended.err
    assert "'cooldown'" in ended.err
    assert "Traceback" not in ended.err


def test_an_unknown_model_is_answered_with_the_nearest(run: Run, yard: Any) -> None:
    """A model without a policy ends with 2, whatever the command, and suggests the one that was meant."""
    for words in (("rollout", "status"), ("train", "--dry-run"), ("monitor",), ("ledger", "log")):
        ended = run(yard, *words, "demnad")
        assert ended.code == 2, words
        assert "unknown model 'demnad'; did you mean 'demand'?" in ended.err


def test_a_mapping_with_an_unknown_column_is_refused(run: Run, yard: Any) -> None:
    """A source column or a canonical field that does not exist ends with 2 and the nearest; nothing lands."""
    good = yard.mapping.read_text()
    for wrong, nearest in (("{from: unit}", "units"), ("quantiti: {from: units}", "quantity")):
        right = "{from: units}" if "unit}" in wrong else "quantity: {from: units}"
        yard.mapping.write_text(good.replace(right, wrong))
        ended = run(yard, "ingest", yard.mapping, yard.file)
        assert ended.code == 2
        assert f"'{nearest}'" in ended.err
    assert not list(yard.settings.home.rglob("*.parquet"))


def test_a_missing_file_and_a_missing_folder_are_usage_errors(run: Run, yard: Any) -> None:
    """A data file or policy folder that is not there ends with 2 and is named."""
    ended = run(yard, "ingest", yard.mapping, yard.root / "nothing.csv")
    assert (ended.code, "nothing.csv" in ended.err) == (2, True)
    shutil.rmtree(yard.root / "policies")
    ended = run(yard, "rollout", "status", "demand")
    assert (ended.code, "SEATRIAL_POLICIES" in ended.err) == (2, True)


def test_a_dry_ingest_changes_nothing(run: Run, yard: Any) -> None:
    """--dry-run counts the events and what would be refused, and leaves no workspace behind."""
    yard.file.write_text(yard.file.read_text() + "sku-1,shop-1,2026-02-01,many\n")
    ended = run(yard, "ingest", yard.mapping, yard.file, "--dry-run", "--json")
    assert ended.code == 0
    assert ended.json["events"] == {"demand": 8 * 140}
    assert ended.json["refused"] == {"demand": {"quantity: wanted a number": 1}}
    assert not yard.settings.home.exists()


def test_ingest_twice_lands_nothing_new(run: Run, yard: Any) -> None:
    """The second run of the same file lands 0 events and writes no file; --json is one object and no progress."""
    first = run(yard, "ingest", yard.mapping, yard.file, "--json")
    assert (first.code, first.err) == (0, "")
    assert (first.json["demand"]["landed"], first.json["demand"]["again"]) == (8 * 140, 0)
    before = files_in(yard.settings.home)
    second = run(yard, "ingest", yard.mapping, yard.file, "--json")
    assert (second.json["demand"]["landed"], second.json["demand"]["again"]) == (0, 8 * 140)
    assert files_in(yard.settings.home) == before


def test_a_delivery_in_another_unit_stops_until_it_is_accepted(run: Run, yard: Any) -> None:
    """Also a dry run ends with 2 and names the rule; --accept with that rule lands the file."""
    header, *rows = yard.file.read_text().splitlines()
    may = [row for row in rows if ",2026-05-" in row]
    yard.file.write_text("\n".join([header, *(row for row in rows if row not in may)]))
    assert run(yard, "ingest", yard.mapping, yard.file, "--json").code == 0
    yard.file.write_text("\n".join([header, *(f"{row}000" for row in may)]))
    before = files_in(yard.settings.home)
    for dry in ([], ["--dry-run"]):
        ended = run(yard, "ingest", yard.mapping, yard.file, *dry)
        assert (ended.code, "demand.quantity.unit_jump: wanted under 5 times" in ended.err) == (2, True)
    assert files_in(yard.settings.home) == before
    ended = run(yard, "ingest", yard.mapping, yard.file, "--accept", "demand.quantity.unit_jump", "--json")
    assert (ended.code, ended.json["demand"]["landed"]) == (0, len(may))


def test_series_that_break_their_contract_are_listed(run: Run, yard: Any) -> None:
    """`features series` tells gaps by series; --strict ends with 1; an unknown rule with 2 and the nearest."""
    lines = yard.file.read_text().splitlines(keepends=True)
    yard.file.write_text("".join(line for line in lines if not line.startswith("sku-3,shop-1,2026-02-1")))
    run(yard, "ingest", yard.mapping, yard.file, "--json")
    told = run(yard, "features", "series", "--json")
    assert told.code == 0
    gap = told.json["gap"]
    assert (told.json["series"], gap["series"], gap["count"]) == (8, 1, 10)
    assert (gap["found"][0]["sku"], gap["found"][0]["examples"]) == ("sku-3", "2026-02-10 to 2026-02-19")
    strict = run(yard, "features", "series", "--strict", "--rule", "gap")
    assert (strict.code, "sku-3 at shop-1: 10 from 2026-02-10" in " ".join(strict.out.split())) == (1, True)
    assert run(yard, "features", "series", "--strict", "--rule", "negative").code == 0
    assert "did you mean 'gap'" in run(yard, "features", "series", "--rule", "gaps").err


def test_training_without_data_says_how_much_is_missing(run: Run, yard: Any) -> None:
    """Training on nothing is a check that failed: exit 1 and the figures, no version."""
    ended = run(yard, "train", "demand", "--json")
    assert ended.code == 1
    assert "wanted at least 200 rows, got 0" in ended.err
    assert run(yard, "ledger", "verify", "--json").json["models"] == {}


def test_status_and_a_dry_advance(run: Run, sailed: Any) -> None:
    """Status names the champion; a dry advance says what it would do and writes no row."""
    status = run(sailed.yard, "rollout", "status", "demand", "--json").json
    assert status["champion"] == "v1"
    ended = run(sailed.yard, "rollout", "advance", "demand", "--dry-run", "--json")
    assert ended.code == 0
    assert ended.json["dry_run"] is True
    assert status | ended.json["state"] == status
    assert run(sailed.yard, "rollout", "status", "demand", "--json").json == status


def test_nothing_to_start_or_roll_back_to(run: Run, sailed: Any) -> None:
    """Starting without a candidate and rolling back without a previous champion are refused in words."""
    ended = run(sailed.yard, "rollout", "start", "demand")
    assert (ended.code, "no candidate to start" in ended.err) == (1, True)
    ended = run(sailed.yard, "rollout", "rollback", "demand", "--reason", "looks odd", "--dry-run")
    assert (ended.code, "no previous champion" in ended.err) == (1, True)


def test_the_ledger_verifies_and_tells_its_rows(run: Run, sailed: Any) -> None:
    """`ledger verify` ends with 0 and the chain's head; `ledger log` has every row, oldest first."""
    verified = run(sailed.yard, "ledger", "verify", "--json")
    assert verified.code == 0
    rows = run(sailed.yard, "ledger", "log", "demand", "--json").json["rows"]
    assert len(rows) == verified.json["models"]["demand"]["rows"]
    assert next((row["kind"], row["actor"]) for row in rows if row["version"] == "v1") == ("registered", "tests")
    assert [row["revision"] for row in rows] == [number + 1 for number in range(len(rows))]


def test_a_changed_ledger_row_is_found(run: Run, sailed: Any, yard: Any) -> None:
    """One reason rewritten in the database ends `ledger verify` with 1 and the row's number."""
    shutil.copytree(sailed.yard.settings.home, yard.settings.home)
    with sqlite3.connect(yard.settings.home / "ledger.db") as database:
        table = database.execute("SELECT name FROM sqlite_master WHERE sql LIKE '%request_id%' AND type = 'table'")
        name = table.fetchone()[0]
        for (trigger,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            database.execute(f'DROP TRIGGER "{trigger}"')
        database.execute(f"UPDATE \"{name}\" SET reason = 'nothing to see' WHERE revision = 2")
    database.close()
    ended = run(yard, "ledger", "verify")
    assert ended.code == 1
    assert "ledger of demand is broken at revision 2" in ended.err


def test_a_dry_reconcile_finds_nothing_and_changes_nothing(run: Run, sailed: Any) -> None:
    """After a clean voyage snapshot and MLflow agree with the ledger, and looking leaves the snapshot alone."""
    before = files_in(sailed.yard.settings.serving)
    ended = run(sailed.yard, "reconcile", "--dry-run", "--json")
    assert ended.code == 0
    assert ended.json == {"dry_run": True, "differences": {"demand": "as the ledger says"}}
    assert files_in(sailed.yard.settings.serving) == before


def test_replay_of_a_decision_is_the_same(run: Run, sailed: Any) -> None:
    """A served decision replays to the bit and ends with 0; an id that nobody was given ends with 2."""
    record = sailed.story.records[-1]
    ended = run(sailed.yard, "replay", record.decision_id, "--json")
    assert (ended.code, ended.json["same"], ended.json["version"]) == (0, True, record.answer.version)
    assert run(sailed.yard, "replay", "0" * 32).code == 2


def test_replay_under_another_policy_names_it(run: Run, sailed: Any, yard: Any) -> None:
    """Under an edited policy the record still comes out the same to the bit, and the policy is named as other."""
    shutil.copytree(sailed.yard.settings.home, yard.settings.home)
    path = yard.root / "policies" / "demand.yaml"
    path.write_text(path.read_text().replace("min_rows: 100", "min_rows: 101"))
    ended = run(yard, "replay", sailed.story.records[0].decision_id, "--json")
    assert ended.code == 0
    assert (ended.json["same"], ended.json["differs"]) == (True, ["policy"])


def test_replay_against_a_changed_model_fails(run: Run, sailed: Any, yard: Any) -> None:
    """With one byte of the champion's files changed a replay ends with 1 and names the model."""
    shutil.copytree(sailed.yard.settings.home, yard.settings.home)
    spec = next((yard.settings.artifacts / "demand").rglob("v1/spec.json"))
    spec.chmod(0o644)
    spec.write_bytes(spec.read_bytes().replace(b"forecast", b"forecasd", 1))
    ended = run(yard, "replay", sailed.story.records[0].decision_id, "--json")
    assert ended.code == 1
    assert (ended.json["same"], "model" in ended.json["differs"]) == (False, True)


def test_a_person_settles_what_is_held(run: Run, sailed: Any, yard: Any) -> None:
    """A held challenger is resumed, approved and rejected from the command line, each step on the ledger."""
    shutil.copytree(sailed.yard.settings.home, yard.settings.home)
    assert run(yard, "rollout", "status", "demand", "--json").json["stage"] == "held"
    resumed = run(yard, "rollout", "resume", "demand", "--reason", "looked at it", "--json")
    assert (resumed.code, resumed.json["stage"]) == (0, "candidate")
    wrong = run(yard, "rollout", "approve", "demand", "--by", "ann", "--version", "v1")
    assert (wrong.code, "wanted the challenger v2" in wrong.err) == (1, True)
    agreed = run(yard, "rollout", "approve", "demand", "--by", "ann", "--version", "v2", "--json")
    assert (agreed.code, agreed.json["approvals"]) == (0, ["ann"])
    gone = run(yard, "rollout", "reject", "demand", "--reason", "not worth it", "--json")
    assert (gone.json["champion"], gone.json["challenger"]) == ("v1", "none")
    last = run(yard, "ledger", "log", "demand", "--limit", 3, "--json").json["rows"]
    assert [row["kind"] for row in last] == ["resumed", "approved", "rejected"]


def test_monitoring_with_too_little_is_no_all_clear(run: Run, sailed: Any, yard: Any) -> None:
    """The monitor on an empty workspace is a usage error; on the sailed one it reports its window as one object."""
    assert run(yard, "monitor", "demand").code == 2
    ended = run(sailed.yard, "monitor", "demand", "--no-report", "--json")
    assert ended.json["health"] in ("ok", "drift", "degraded")
    assert (ended.code, ended.json["version"], ended.json["rows"] > 0) == (0, "v1", True)


def schema_errors(value: Any, schema: dict[str, Any], defs: dict[str, Any], where: str = "") -> list[str]:
    """What is wrong with a value by the JSON Schema keywords that our schemas use; another keyword fails the test."""
    known = (  # noqa: SIM905
        "title description default $ref $defs type format properties additionalProperties required enum const anyOf "
        "items prefixItems minItems maxItems minLength maxLength minimum maximum pattern discriminator "
        "exclusiveMinimum exclusiveMaximum patternProperties"
    ).split()
    assert set(schema) <= set(known), set(schema) - set(known)
    if "$ref" in schema:
        return schema_errors(value, defs[schema["$ref"].rpartition("/")[2]], defs, where)
    if "anyOf" in schema:
        tried = [schema_errors(value, one, defs, where) for one in schema["anyOf"]]
        return [] if [] in tried else tried[0]
    kinds = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "object": dict, "array": list}
    kinds["null"] = type(None)
    kind = schema.get("type")
    if kind and (not isinstance(value, kinds[kind]) or (isinstance(value, bool) and kind != "boolean")):
        return [f"{where}: {value!r} is no {kind}"]
    if kind == "object":
        return [found for name in value for found in property_errors(name, value, schema, defs, where)] + [
            f"{where}.{name}: missing" for name in schema.get("required", ()) if name not in value
        ]
    if kind == "array":
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            return [f"{where}: {len(value)} items"]
        each = schema.get("prefixItems") or [schema.get("items", {})] * len(value)
        return [
            found
            for item, one in zip(value, each, strict=True)
            for found in schema_errors(item, one, defs, f"{where}[]")
        ]
    bad = [name for name, fails in scalar_rules(value).items() if name in schema and fails(schema[name])]
    return [f"{where}: {value!r} breaks {name} {schema[name]!r}" for name in bad]


def property_errors(name: str, value: Any, schema: dict[str, Any], defs: dict[str, Any], where: str) -> list[str]:
    rest = schema.get("additionalProperties", True)
    by_pattern = [one for pattern, one in schema.get("patternProperties", {}).items() if re.search(pattern, name)]
    inner = schema.get("properties", {}).get(name, by_pattern[0] if by_pattern else rest)
    if inner is False:
        return [f"{where}.{name}: unknown"]
    return [] if inner is True else schema_errors(value[name], inner, defs, f"{where}.{name}")


def scalar_rules(value: Any) -> dict[str, Callable[[Any], bool]]:
    """Keyword -> whether the value breaks it."""
    return {
        "enum": lambda allowed: value not in allowed,
        "const": lambda only: value != only,
        "minimum": lambda low: value < low,
        "maximum": lambda high: value > high,
        "exclusiveMinimum": lambda low: value <= low,
        "exclusiveMaximum": lambda high: value >= high,
        "minLength": lambda least: len(value) < least,
        "maxLength": lambda most: len(value) > most,
        "pattern": lambda pattern: not re.search(pattern, value),
        # Editors check this one: an ISO 8601 duration is P7D, not 7d.
        "format": lambda name: name == "duration" and not value.startswith("P"),
    }


def test_the_policy_schema_accepts_the_shipped_policies(run: Run, yard: Any) -> None:
    """Every shipped policy satisfies what `schema policy` prints; a misspelt key and a wrong value do not."""
    schema = run(yard, "schema", "policy").json
    defs = schema["$defs"]
    files = [*(ROOT / "policies").glob("*.yaml"), *(ROOT / "examples").glob("*/policies/*.yaml")]
    assert len(files) == 5
    for file in files:
        assert load_policies(file.parent)
        plain = YAML(typ="safe").load(file.read_text())
        assert schema_errors(plain, schema, defs) == [], file
        assert schema_errors({**plain, "modle": "x"}, schema, defs) == [".modle: unknown"]
        assert schema_errors({**plain, "kind": "guess"}, schema, defs)
        assert schema_errors({name: plain[name] for name in plain if name != "gate"}, schema, defs) == [
            ".gate: missing"
        ]


@pytest.mark.parametrize("which", ["features", "mapping", "rehearsal"])
def test_other_schemas_are_printed(run: Run, yard: Any, which: str) -> None:
    """Each kind of YAML file has a schema that refuses unknown keys."""
    assert run(yard, "schema", which).json["additionalProperties"] is False
    assert run(yard, "schema", "polciy").code == 2
