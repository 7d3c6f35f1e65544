"""Event contracts are valid Open Data Contract Standard files and say the same to us as to others."""

from pathlib import Path

import pytest
from open_data_contract_standard.model import OpenDataContractStandard

from contracts.errors import UnknownName
from contracts.events import event_contract, event_kinds
from features.odcs_checks import CHECKS

FOLDER = Path(__file__).parents[2] / "contracts" / "events"
DIMENSIONS = ("accuracy", "completeness", "conformity", "consistency", "coverage", "timeliness", "uniqueness")


@pytest.mark.parametrize("kind", event_kinds())
def test_contract_is_valid_and_complete(kind: str) -> None:
    """Each contract parses as ODCS 3.1 and carries identity, both times and a source."""
    standard = OpenDataContractStandard.from_file(str(FOLDER / f"{kind}.odcs.yaml"))
    ours = event_contract(kind)
    assert standard.apiVersion == "v3.1.0"
    assert [field.name for field in standard.schema_[0].properties] == list(ours.names)
    assert {"event_id", "event_time", "known_at", "source_system", "correlation_id"} <= set(ours.names)
    assert set(ours.natural_key) <= set(ours.names)


@pytest.mark.parametrize("kind", event_kinds())
def test_every_quality_rule_is_compiled_and_says_which_kind_it_is(kind: str) -> None:
    """Each rule is technical (an error) or business (a warning), in a dimension of the standard, and has its check."""
    table = OpenDataContractStandard.from_file(str(FOLDER / f"{kind}.odcs.yaml")).schema_[0]
    written = [*table.quality, *(rule for item in table.properties for rule in item.quality or ())]
    compiled = event_contract(kind).rules
    assert [rule.id for rule in written] == [rule.id for rule in compiled]
    for rule, ours in zip(written, compiled, strict=True):
        assert rule.tags == [ours.level]
        assert rule.severity == {"technical": "error", "business": "warning"}[ours.level]
        assert rule.dimension in DIMENSIONS
        assert rule.type == "library" or (rule.type, rule.engine) == ("custom", "seatrial")
        assert ours.check in CHECKS[ours.level]
        assert rule.description
    named = [rule.named(name) for rule in compiled for name in ([""] if rule.field else event_contract(kind).names)]
    assert len(named) == len(set(named))


def test_unknown_kind_is_refused_with_the_nearest() -> None:
    """A kind without a contract is an error that names the nearest."""
    with pytest.raises(UnknownName, match="did you mean 'shipment'"):
        event_contract("shipmnt")
