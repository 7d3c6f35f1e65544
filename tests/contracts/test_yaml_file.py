"""Strict YAML: errors name file, line, key, what was wanted, what came and the nearest key."""

from pathlib import Path

import pytest

from contracts.errors import ConfigInvalid, InputInvalid
from contracts.policy import load_policies, load_policy

POLICIES = Path(__file__).parents[2] / "policies"


def written(tmp_path: Path, old: str, new: str) -> Path:
    text = (POLICIES / "demand.yaml").read_text()
    assert old in text
    path = tmp_path / "demand.yaml"
    path.write_text(text.replace(old, new, 1))
    return path


def test_shipped_policies_load_and_name_their_models() -> None:
    """Both shipped policies satisfy the schema, under their own names."""
    assert set(load_policies(POLICIES)) == {"demand", "late_delivery"}


def test_misspelt_key_is_refused_with_line_and_suggestion(tmp_path: Path) -> None:
    """A misspelt key ends loading; the message has the line and the key that was meant."""
    path = written(tmp_path, "cooldown: 28d", "cooldwon: 28d")
    with pytest.raises(ConfigInvalid) as refused:
        load_policy(path)
    assert refused.value.key == "retrain.cooldwon"
    assert path.read_text().splitlines()[refused.value.line - 1].strip().startswith("cooldwon")
    assert "did you mean 'cooldown'?" in str(refused.value)


def test_wrong_value_says_what_was_wanted(tmp_path: Path) -> None:
    """A duration in words is refused with the form that is accepted."""
    with pytest.raises(ConfigInvalid, match="a number and one of s, m, h, d, w") as refused:
        load_policy(written(tmp_path, "cooldown: 28d", "cooldown: four weeks"))
    assert "four weeks" in str(refused.value)


def test_rules_across_keys_are_checked(tmp_path: Path) -> None:
    """A forecast gated on a risk's metric is refused."""
    with pytest.raises(ConfigInvalid, match="not brier"):
        load_policy(written(tmp_path, "metric: rmsse", "metric: brier"))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a: 1\na: 2\n", "valid YAML"),
        ("a: [1, 2", "valid YAML"),
        ("a: &x [1]\nb: *x\n", "without aliases"),
        ("- 1\n- 2\n", "valid dictionary"),
    ],
)
def test_files_that_are_no_policy_are_refused(tmp_path: Path, text: str, wanted: str) -> None:
    """Duplicate keys, broken YAML, aliases and lists end in a clear error."""
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises((ConfigInvalid, InputInvalid), match=wanted):
        load_policy(path)


def test_a_tag_constructs_nothing(tmp_path: Path) -> None:
    """A Python tag in a policy runs no code and does not load."""
    marker = tmp_path / "ran"
    path = tmp_path / "p.yaml"
    path.write_text(f"model: !!python/object/apply:os.mkdir ['{marker}']\n")
    with pytest.raises((ConfigInvalid, InputInvalid)):
        load_policy(path)
    assert not marker.exists()


def test_hash_ignores_comments_and_order_but_not_values(tmp_path: Path) -> None:
    """The policy's hash covers meaning: a comment leaves it, a threshold changes it."""
    same = load_policy(written(tmp_path, "model: demand", "# a note\nmodel: demand"))
    assert same.hash == load_policy(POLICIES / "demand.yaml").hash
    other = load_policy(written(tmp_path, "cooldown: 28d", "cooldown: 27d"))
    assert other.hash != same.hash
