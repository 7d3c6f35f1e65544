"""A training from end to end, on data with a signal and on noise."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from contracts.declarations import Declarations
from contracts.errors import ArtifactRefused, InputInvalid, NotEnoughData, UnknownName
from contracts.evaluation import LOSS_COLUMNS, METRIC_COLUMNS, TrainedModel
from contracts.policy import Policy
from models.design import FrameColumns
from models.forecaster import ForecastModel
from models.load import load_model
from models.risk import RiskModel
from models.training import read_predictions, train

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory,
    demand_policy: Policy,
    risk_policy: Policy,
    declarations: Declarations,
    demand: pd.DataFrame,
    risk: pd.DataFrame,
) -> dict[str, TrainedModel]:
    """One candidate of each kind."""
    folder = tmp_path_factory.mktemp("trained")
    return {
        "forecast": train(demand_policy, demand, declarations, now=NOW, out=folder / "forecast"),
        "risk": train(risk_policy, risk, declarations, now=NOW, out=folder / "risk"),
    }


def whole(found: TrainedModel, who: str, metric: str) -> float:
    table = found.evaluation.metrics
    use = (table["who"] == who) & (table["metric"] == metric) & (table["segment"] == "") & (table["slice"] == "")
    return float(table[use]["value"].iloc[0])


@pytest.mark.parametrize(("kind", "metric"), [("forecast", "rmsse"), ("risk", "brier")])
def test_a_candidate_beats_the_incumbent_where_there_is_a_signal(
    kind: str, metric: str, trained: dict[str, TrainedModel]
) -> None:
    """By more than a tenth, and its losses say the same as its metrics."""
    found = trained[kind]
    assert whole(found, "candidate", metric) < 0.9 * whole(found, "incumbent", metric)
    mean = found.evaluation.losses["candidate"].mean()
    assert (np.sqrt(mean) if kind == "forecast" else mean) == pytest.approx(whole(found, "candidate", metric))
    assert found.evaluation.reference_loss == pytest.approx(mean)


@pytest.mark.parametrize("kind", ["forecast", "risk"])
def test_an_evaluation_keeps_the_contract(kind: str, trained: dict[str, TrainedModel]) -> None:
    """Columns, order, finite losses of candidate and incumbent, no champion yet, segments by policy."""
    found = trained[kind].evaluation
    segment = {"forecast": "segment_volume", "risk": "segment_origin"}[kind]
    assert tuple(found.losses.columns) == (*LOSS_COLUMNS, segment)
    assert tuple(found.metrics.columns) == METRIC_COLUMNS
    assert found.losses["as_of"].is_monotonic_increasing
    assert np.isfinite(found.losses[["candidate", "incumbent"]]).all().all()
    assert found.losses["champion"].isna().all()
    assert found.metrics["segment"].str.startswith(segment.removeprefix("segment_")).any()
    assert pd.read_parquet(trained[kind].folder / "losses.parquet").equals(found.losses)


def test_noise_trains_and_does_not_beat_the_incumbent_by_much(
    tmp_path: Path, risk_policy: Policy, declarations: Declarations, risk_noise: pd.DataFrame
) -> None:
    """Lateness that nothing explains gives an AUC near a coin's and a calibrated answer."""
    found = train(risk_policy, risk_noise, declarations, now=NOW, out=tmp_path / "noise")
    assert abs(whole(found, "candidate", "auc") - 0.5) < 0.06
    assert found.evaluation.calibration["ece"] < 0.06


def test_demand_noise_trains(
    tmp_path: Path, demand_policy: Policy, declarations: Declarations, demand_noise: pd.DataFrame
) -> None:
    """Without a weekly shape the mean is right to within a few percent."""
    found = train(demand_policy, demand_noise, declarations, now=NOW, out=tmp_path / "noise")
    assert abs(found.evaluation.calibration["bias"]) < 0.08
    assert 0.6 < found.evaluation.calibration["coverage"] <= 1.0


def test_forecasts_never_cross_and_are_never_negative(trained: dict[str, TrainedModel], demand: pd.DataFrame) -> None:
    """On rows far from anything seen too."""
    model = load_model(trained["forecast"].folder)
    assert isinstance(model, ForecastModel)
    wild = demand.head(300).copy()
    numbers = [c for c in wild.columns if c.startswith("demand_history__")]
    wild[numbers] = np.random.default_rng(2).exponential(50, (300, len(numbers)))
    mean, table = model.predict(FrameColumns(wild))
    assert (mean >= 0).all()
    assert (table >= 0).all()
    assert (np.diff(table, axis=1) >= 0).all()


def test_a_forecast_without_a_scale_is_no_forecast(trained: dict[str, TrainedModel], demand: pd.DataFrame) -> None:
    """NaN, so that the ladder takes the next rung."""
    model = load_model(trained["forecast"].folder)
    assert isinstance(model, ForecastModel)
    mean, table = model.predict(FrameColumns(demand.head(2).assign(demand_history__scale=[np.nan, 5.0])))
    assert np.isnan(mean).tolist() == [True, False]
    assert np.isnan(table[0]).all()


@pytest.mark.parametrize("kind", ["forecast", "risk"])
def test_a_loaded_model_answers_to_the_last_bit_alone_and_in_a_batch(
    kind: str, trained: dict[str, TrainedModel], demand: pd.DataFrame, risk: pd.DataFrame, tmp_path: Path
) -> None:
    """What a decision's replay rests on; saving again writes the same bytes."""
    first = load_model(trained[kind].folder)
    first.save(tmp_path / "again")
    second = load_model(tmp_path / "again")
    rows = (demand if kind == "forecast" else risk).tail(2500)
    batch = np.column_stack([np.asarray(p) for p in np.atleast_1d(_parts(first, rows))])
    assert batch.tobytes() == np.column_stack(_parts(second, rows)).tobytes()
    alone = np.concatenate([np.column_stack(_parts(second, rows.iloc[[i]])) for i in range(60)])
    assert batch[:60].tobytes() == alone.tobytes()
    for path in (tmp_path / "again").iterdir():
        assert path.read_bytes() == (trained[kind].folder / path.name).read_bytes()


def _parts(model: ForecastModel | RiskModel, rows: pd.DataFrame) -> list[np.ndarray]:
    answer = model.predict(FrameColumns(rows))
    return [answer[0], *answer[1].T] if isinstance(answer, tuple) else [answer]


@pytest.mark.parametrize("kind", ["forecast", "risk"])
def test_the_same_inputs_write_the_same_bytes(
    kind: str,
    trained: dict[str, TrainedModel],
    request: pytest.FixtureRequest,
    declarations: Declarations,
    tmp_path: Path,
) -> None:
    """Every file of the folder, figures and card included; and no file that could run code."""
    name = {"forecast": "demand", "risk": "risk"}[kind]
    policy, rows = request.getfixturevalue(f"{name}_policy"), request.getfixturevalue(name)
    again = train(policy, rows.copy(), declarations, now=NOW, out=tmp_path / "again")
    files = sorted(path.name for path in again.folder.iterdir())
    assert files == sorted(path.name for path in trained[kind].folder.iterdir())
    assert {Path(file).suffix for file in files} <= {".json", ".txt", ".parquet", ".html", ".png"}
    for file in files:
        assert (again.folder / file).read_bytes() == (trained[kind].folder / file).read_bytes(), file


def test_labels_known_after_now_change_nothing(
    tmp_path: Path, risk_policy: Policy, declarations: Declarations, risk: pd.DataFrame
) -> None:
    """A training in the past is the same whether or not the future is in its frame."""
    now = NOW - timedelta(days=25)
    future = (risk["label_known_at"] > now).to_numpy()
    spoilt = risk.assign(label=np.where(future, 1.0, risk["label"]))
    one = train(risk_policy, risk, declarations, now=now, out=tmp_path / "one")
    two = train(risk_policy, spoilt, declarations, now=now, out=tmp_path / "two")
    assert one.dataset_hash == two.dataset_hash
    assert (one.folder / "trees.txt").read_bytes() == (two.folder / "trees.txt").read_bytes()
    assert one.evaluation.losses.equals(two.evaluation.losses)


def test_the_champion_is_compared_only_on_rows_it_cannot_have_learnt_from(
    tmp_path: Path, risk_policy: Policy, declarations: Declarations, risk: pd.DataFrame
) -> None:
    """NaN before its own training, a loss from then on."""
    then = NOW - timedelta(days=12)
    old = train(risk_policy, risk, declarations, now=then, out=tmp_path / "old")
    champion = load_model(old.folder)
    new = train(risk_policy, risk, declarations, now=NOW, out=tmp_path / "new", champion=champion)
    losses = new.evaluation.losses
    fresh = losses["as_of"] >= then
    assert fresh.any()
    assert losses["champion"].notna().eq(fresh).all()
    assert "champion" in set(new.evaluation.metrics["who"])


def test_a_champion_of_other_features_is_said_to_be_not_comparable(
    tmp_path: Path,
    risk_policy: Policy,
    declarations: Declarations,
    risk: pd.DataFrame,
    trained: dict[str, TrainedModel],
) -> None:
    """Its losses are NaN everywhere and the card says why."""
    champion = load_model(trained["forecast"].folder)
    since = NOW - timedelta(days=20)
    found = train(
        risk_policy, risk, declarations, now=NOW, out=tmp_path / "x", champion=champion, champion_trained_until=since
    )
    assert found.evaluation.losses["champion"].isna().all()
    assert "champion_unusable" in found.evaluation.dataset
    assert "Not compared with the champion" in (found.folder / "card.html").read_text()


def test_reasons_name_what_moved_the_risk(trained: dict[str, TrainedModel], risk: pd.DataFrame) -> None:
    """A late hour and a storm raise it; the data were made so."""
    model = load_model(trained["risk"].folder)
    assert isinstance(model, RiskModel)
    storm = risk.head(1).assign(origin_weather__wind_speed=45.0, schedule_hour=23.0)
    reasons = model.reasons(FrameColumns(storm))[0]
    assert len(reasons) == 3
    assert "schedule_hour = 23 raises the risk" in reasons
    assert "origin_weather__wind_speed = 45 raises the risk" in reasons


@pytest.mark.parametrize("kind", ["forecast", "risk"])
def test_importance_is_by_given_columns(
    kind: str, trained: dict[str, TrainedModel], request: pytest.FixtureRequest
) -> None:
    """Shares that sum to one, over names that serving knows."""
    rows = request.getfixturevalue({"forecast": "demand", "risk": "risk"}[kind])
    shares = load_model(trained[kind].folder).importance()
    assert sum(shares.values()) == pytest.approx(1.0)
    assert set(shares) <= set(rows.columns)


def test_the_card_speaks_and_escapes(trained: dict[str, TrainedModel], demand_policy: Policy) -> None:
    """Owner, result, limits and provenance, in JSON and HTML."""
    folder = trained["forecast"].folder
    card = json.loads((folder / "card.json").read_text())
    assert card["owner"] == "replenishment"
    assert "less loss" in card["summary"]
    assert card["provenance"]["policy"] == demand_policy.hash
    assert trained["forecast"].dataset_hash in (folder / "card.html").read_text()


def test_out_of_sample_answers_are_kept(trained: dict[str, TrainedModel]) -> None:
    """For the drift reference: one finite answer a scored row."""
    frame, answers = read_predictions(trained["risk"].folder)
    assert len(frame) == trained["risk"].evaluation.dataset["rows"]
    assert np.isfinite(answers).all()


def test_bad_requests_are_refused(
    tmp_path: Path,
    risk_policy: Policy,
    declarations: Declarations,
    risk: pd.DataFrame,
    trained: dict[str, TrainedModel],
) -> None:
    """A folder in use, an unknown rule, an unknown segment, one outcome only, a folder that holds no model."""
    with pytest.raises(InputInvalid, match="empty or new folder"):
        train(risk_policy, risk, declarations, now=NOW, out=trained["risk"].folder)
    with pytest.raises(UnknownName, match="rolling_late_rate"):
        train(risk_policy.model_copy(update={"incumbent": "roling"}), risk, declarations, now=NOW, out=tmp_path / "a")
    rule = risk_policy.gate.segments.model_copy(update={"by": ("orign",)})
    gate = risk_policy.gate.model_copy(update={"segments": rule})
    with pytest.raises(UnknownName, match="origin"):
        train(risk_policy.model_copy(update={"gate": gate}), risk, declarations, now=NOW, out=tmp_path / "b")
    with pytest.raises(NotEnoughData, match="rarer outcome"):
        train(risk_policy, risk.assign(label=0.0), declarations, now=NOW, out=tmp_path / "c")
    with pytest.raises(ArtifactRefused, match=r"spec\.json"):
        load_model(tmp_path)
