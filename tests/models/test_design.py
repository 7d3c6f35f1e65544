"""The matrix is the same for one row and for many, in training and in serving."""

import numpy as np
import pandas as pd
import pytest

from contracts.declarations import Declarations
from contracts.errors import InputInvalid
from contracts.policy import Kind
from models.design import DesignSpec, FrameColumns, design_matrix, design_spec, scale_of, target_weekday


def served(spec: DesignSpec, row: pd.Series) -> dict[str, np.ndarray]:
    """One row as serving makes it: plain arrays, None for what is unknown."""
    values = {name: row[name] for name in (*spec.sources, "step") if name in row.index}
    return {k: np.array([None if v != v else v], dtype=object if v != v else None) for k, v in values.items()}


@pytest.mark.parametrize(("kind", "service"), [("forecast", "demand_v1"), ("risk", "late_delivery_v1")])
def test_a_row_is_the_same_alone_and_in_a_batch(
    kind: Kind, service: str, declarations: Declarations, demand: pd.DataFrame, risk: pd.DataFrame
) -> None:
    """To the last bit, NaN and unknown categories included."""
    rows = (demand if kind == "forecast" else risk).iloc[:80].copy()
    spec = design_spec(kind, declarations, service, rows.iloc[:60])
    batch = design_matrix(spec, FrameColumns(rows))
    alone = np.concatenate([design_matrix(spec, served(spec, row)) for _, row in rows.iterrows()])
    assert batch.tobytes() == alone.tobytes()
    assert batch.shape == (80, len(spec.names))


def test_levels_are_relative_to_the_series_scale(declarations: Declarations, demand: pd.DataFrame) -> None:
    """The same series in dozens and in pieces looks the same, but for its scale."""
    spec = design_spec("forecast", declarations, "demand_v1", demand)
    columns = {str(c): demand[c].to_numpy()[:50] for c in demand.columns}
    level = [
        c for c in columns if "lag_" in c or "_mean_" in c or c.split("__")[-1][:4] in ("mean", "std_", "scal", "naiv")
    ]
    dozens = columns | {name: columns[name] * 12 for name in level if name.startswith("demand_history")}
    one, other = design_matrix(spec, columns), design_matrix(spec, dozens)
    same = [i for i, name in enumerate(spec.names) if name != "log_scale"]
    assert np.allclose(one[:, same], other[:, same], equal_nan=True)


def test_season_values_are_those_of_the_target_weekday(declarations: Declarations, demand: pd.DataFrame) -> None:
    """Mean and last value of the same weekday, over the scale."""
    spec = design_spec("forecast", declarations, "demand_v1", demand)
    row = demand.iloc[[9]]
    matrix = design_matrix(spec, FrameColumns(row))[0]
    day, scale = pd.Timestamp(row["target_date"].iloc[0]).weekday(), scale_of(spec, FrameColumns(row))[0]
    found = dict(zip(spec.names, matrix, strict=True))
    assert found["season_mean"] == row[f"demand_history__season_mean_{day}"].iloc[0] / scale
    assert found["season_lag_1"] == row["demand_history__lag_5"].iloc[0] / scale


def test_the_weekday_comes_from_the_date_or_from_the_fact() -> None:
    """Monday is 0 in both."""
    assert target_weekday({"target_date": np.array(["2026-06-01", "2026-06-07"])}).tolist() == [0, 6]
    assert target_weekday({"weekday": np.array([3.0])}).tolist() == [3]


def test_a_dead_series_does_not_divide_by_nothing(declarations: Declarations, demand: pd.DataFrame) -> None:
    """Its scale is a share of the panel's level; an unknown scale stays unknown."""
    spec = design_spec("forecast", declarations, "demand_v1", demand)
    scale = scale_of(spec, {"demand_history__scale": np.array([0.0, np.nan])})
    assert scale[0] == pytest.approx(0.05 * demand["demand_history__scale"].mean())
    assert np.isnan(scale[1])


def test_an_unknown_category_has_its_own_code(declarations: Declarations, risk: pd.DataFrame) -> None:
    """It is neither missing nor one of the known."""
    spec = design_spec("risk", declarations, "late_delivery_v1", risk)
    rows = risk.head(3).assign(carrier=["A", "never seen", None])
    codes = design_matrix(spec, FrameColumns(rows))[:, spec.names.index("carrier")]
    assert codes[0] == 0.0
    assert codes[1] == len(spec.categories["carrier"])
    assert np.isnan(codes[2])


def test_a_missing_column_is_named(declarations: Declarations, risk: pd.DataFrame) -> None:
    """Both when a recipe is made and when it is followed."""
    spec = design_spec("risk", declarations, "late_delivery_v1", risk)
    with pytest.raises(InputInvalid, match="schedule_hour"):
        design_matrix(spec, FrameColumns(risk.drop(columns="schedule_hour")))
    with pytest.raises(InputInvalid, match="distance_km"):
        design_spec("risk", declarations, "late_delivery_v1", risk.drop(columns="distance_km"))


def test_time_of_year_needs_a_year(declarations: Declarations, demand: pd.DataFrame) -> None:
    """In a shorter history it is a date in disguise and stays out."""
    assert "month" not in design_spec("forecast", declarations, "demand_v1", demand).names
    older = demand.head(50).assign(as_of=demand["as_of"].head(50) - pd.Timedelta(days=400))
    assert "month" in design_spec("forecast", declarations, "demand_v1", pd.concat([older, demand])).names


def test_a_recipe_survives_writing_and_reading(declarations: Declarations, risk: pd.DataFrame) -> None:
    """As JSON, without loss."""
    spec = design_spec("risk", declarations, "late_delivery_v1", risk)
    assert DesignSpec.model_validate_json(spec.model_dump_json()) == spec
