"""Event contracts are valid Open Data Contract Standard files and say the same to us as to others."""

from pathlib import Path

import pytest
from open_data_contract_standard.model import OpenDataContractStandard

from contracts.errors import UnknownName
from contracts.events import event_contract, event_kinds

FOLDER = Path(__file__).parents[2] / "contracts" / "events"


@pytest.mark.parametrize("kind", event_kinds())
def test_contract_is_valid_and_complete(kind: str) -> None:
    """Each contract parses as ODCS 3.1 and carries identity, both times and a source."""
    standard = OpenDataContractStandard.from_file(str(FOLDER / f"{kind}.odcs.yaml"))
    ours = event_contract(kind)
    assert standard.apiVersion == "v3.1.0"
    assert [field.name for field in standard.schema_[0].properties] == list(ours.names)
    assert {"event_id", "event_time", "known_at", "source_system", "correlation_id"} <= set(ours.names)
    assert set(ours.natural_key) <= set(ours.names)


def test_unknown_kind_is_refused_with_the_nearest() -> None:
    """A kind without a contract is an error that names the nearest."""
    with pytest.raises(UnknownName, match="did you mean 'shipment'"):
        event_contract("shipmnt")
