"""Reconciled forecasts: they add up, are never negative, and keep what they were given."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import InputInvalid, NotEnoughData, UnknownName
from models.hierarchy import Hierarchy, Method, Reconciled, coherence, hierarchy_of, reconcile, total_panel
from models.panel import Floats, Panel, PanelForecast

ROOT = Path(__file__).parents[2]
H, PAST, LEVELS = 4, 60, (0.1, 0.5, 0.9)
METHODS: tuple[Method, ...] = ("mint_shrink", "wls_struct", "bottom_up")


def panel(series: int = 7, seed: int = 2) -> Panel:
    """Series of two regions and two kinds, one of an unknown kind."""
    rng = np.random.default_rng(seed)
    demand = rng.poisson(rng.uniform(1, 30, series)[:, None], (series, PAST)).astype(float)
    kinds = np.array([None, "x", "y"] * 3, dtype=object)[:series]
    regions = np.array(["north", "south"] * 5, dtype=object)[:series]
    return Panel(
        tuple(f"s{i}" for i in range(series)), "week", 2800, demand,
        ahead={"promo": rng.random((series, PAST + H))}, static={"region": regions, "kind": kinds},
    )  # fmt: skip


def naive(given_panel: Panel, horizon: int) -> PanelForecast:
    """The median of the last eight periods (medians do not add up), with quantiles of the past."""
    level = np.nanmedian(given_panel.demand[:, -8:], axis=1)
    spread = np.nanquantile(given_panel.demand, LEVELS, axis=1).T
    mean = np.repeat(level[:, None], horizon, axis=1)
    return PanelForecast(mean, np.repeat(spread[:, None], horizon, axis=1), LEVELS)


def sound(made: Reconciled) -> None:
    """What holds for every reconciled forecast."""
    assert coherence(made) < 1e-6
    tree = made.hierarchy
    bottom = dict(zip(tree.nodes[tree.groups :], made.mean[tree.groups :], strict=True))
    np.testing.assert_allclose(made.mean[0], sum(bottom.values()), rtol=1e-9)
    for table in (made.mean, made.quantiles):
        assert np.isfinite(table).all()
        assert (table >= 0).all()
    assert (np.diff(made.quantiles, axis=2) >= -1e-9).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("totals", ["given", "function", "none"])
def test_parts_add_up_by_every_method(method: Method, totals: str) -> None:
    """With totals given, made by a function, or added up: children sum to parents, nothing is negative."""
    shop = panel()
    tree = hierarchy_of(shop, ["region", "kind"])
    own = naive(total_panel(shop, tree), H)
    given_totals = dict(zip(tree.nodes[: tree.groups], own.mean * 1.3, strict=True))
    made = reconcile(
        shop, naive(shop, H), ["region", "kind"],
        {"given": given_totals, "function": naive, "none": None}[totals], method,
    )  # fmt: skip
    sound(made)
    regions = made.of("region=north")[0] + made.of("region=south")[0]
    np.testing.assert_allclose(regions, made.of("total")[0], rtol=1e-9)
    assert made.about["method"] == method


def test_bottom_up_keeps_the_series_as_they_are() -> None:
    """Bottom-up changes no series, whatever the totals' forecasts say."""
    shop = panel()
    made = reconcile(shop, naive(shop, H), ["region"], naive, "bottom_up")
    np.testing.assert_array_equal(made.mean[made.hierarchy.groups :], naive(shop, H).mean)


@pytest.mark.parametrize("method", METHODS)
def test_forecasts_that_add_up_already_stay(method: Method) -> None:
    """Without an incoherence there is nothing to move."""
    shop = panel()
    made = reconcile(shop, naive(shop, H), ["region", "kind"], None, method)
    np.testing.assert_allclose(made.mean[made.hierarchy.groups :], naive(shop, H).mean, rtol=1e-6)


def test_structural_weights_are_generalised_least_squares() -> None:
    """wls_struct equals the closed form with the number of series as variance."""
    shop = panel(seed=5)
    tree = hierarchy_of(shop, ["region"])
    base = np.vstack([naive(total_panel(shop, tree), H).mean * 1.2, naive(shop, H).mean])
    totals = dict(zip(tree.nodes[: tree.groups], base[: tree.groups], strict=True))
    made = reconcile(shop, naive(shop, H), ["region"], totals, "wls_struct")
    weight = np.diag(1.0 / tree.sums.sum(axis=1))
    inverse = np.linalg.inv(tree.sums.T @ weight @ tree.sums)
    wanted = tree.sums @ inverse @ tree.sums.T @ weight @ base
    np.testing.assert_allclose(made.mean, wanted, rtol=1e-8)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.floats(0.0, 3.0), st.sampled_from(["mint_shrink", "wls_struct"]))
def test_totals_far_below_the_parts_never_push_a_part_below_zero(seed: int, factor: float, method: Method) -> None:
    """However far the totals lie from the sums, the result adds up and stays at zero or above."""
    shop = panel(6, seed)
    tree = hierarchy_of(shop, ["region"])
    rng = np.random.default_rng(seed)
    own = naive(total_panel(shop, tree), H).mean * factor * rng.random((tree.groups, H))
    made = reconcile(shop, naive(shop, H), ["region"], dict(zip(tree.nodes, own, strict=False)), method)
    sound(made)


def test_clipping_keeps_the_grand_total() -> None:
    """Where a series would fall below zero, the reconciled grand total is what it was, and the clipping is counted."""
    shop = panel(6, seed=1)
    forecast = naive(shop, H)
    forecast.mean[0] = 0.01
    tree = hierarchy_of(shop, ["region"])
    own = tree.sums[: tree.groups] @ forecast.mean
    own[0] *= 0.8
    own[1] *= 0.4
    totals = dict(zip(tree.nodes[: tree.groups], own, strict=True))
    made = reconcile(shop, forecast, ["region"], totals, "wls_struct")
    sound(made)
    weight = np.diag(1.0 / tree.sums.sum(axis=1))
    free = np.linalg.inv(tree.sums.T @ weight @ tree.sums) @ tree.sums.T @ weight @ np.vstack([own, forecast.mean])
    assert made.about["clipped_at_zero"] == int((free < 0).sum()) > 0
    np.testing.assert_allclose(made.mean[0], free.sum(axis=0), rtol=1e-8)


def test_quantiles_move_with_their_mean() -> None:
    """A forecast's own quantiles are scaled as its mean is; totals without any get the residuals' around it."""
    shop = panel()
    scaled = reconcile(shop, naive(shop, H), ["region"], naive, "wls_struct")
    tree, own = scaled.hierarchy, naive(total_panel(shop, scaled.hierarchy), H)
    factor = scaled.mean[: tree.groups] / own.mean
    np.testing.assert_allclose(scaled.quantiles[: tree.groups], own.quantiles * factor[..., None], rtol=1e-9)
    rng = np.random.default_rng(3)
    errors = rng.normal(0, 5, (len(tree.nodes), 4000))
    around = reconcile(shop, naive(shop, H), ["region"], None, "bottom_up", residuals=errors)
    width = around.quantiles[0, :, 2] - around.quantiles[0, :, 0]
    np.testing.assert_allclose(width, 2 * 1.2816 * 5, rtol=0.06)
    assert around.about["total_quantiles"] == "residuals around the coherent mean"


def test_totals_of_what_is_known() -> None:
    """A total sums what is known, is unknown where nothing is, and takes the mean of a covariate."""
    shop = panel(3)
    shop.demand[0, 0] = shop.demand[:, 1] = np.nan  # type: ignore[call-overload]
    totals = total_panel(shop, hierarchy_of(shop, ["region"]))
    assert totals.keys == ("total", "region=north", "region=south")
    assert totals.demand[0, 0] == shop.demand[1:, 0].sum()
    assert np.isnan(totals.demand[:, 1]).all()
    np.testing.assert_allclose(totals.ahead["promo"][1], shop.ahead["promo"][[0, 2]].mean(axis=0))


def test_an_unknown_attribute_is_a_group_of_its_own() -> None:
    """Series without a value make the total `unknown`, so that nothing is left out of the level."""
    tree: Hierarchy = hierarchy_of(panel(), ["kind"])
    assert tree.nodes[:4] == ("total", "kind=unknown", "kind=x", "kind=y")
    np.testing.assert_array_equal(tree.sums[1:4].sum(axis=0), np.ones(7))


def test_what_cannot_be_reconciled_is_named() -> None:
    """A missing total, unknown attribute or method, bad figures, and too few residuals are refused by name."""
    shop, forecast = panel(), naive(panel(), H)

    def asked(**more: object) -> Reconciled:
        return reconcile(**{"panel": shop, "forecast": forecast, "by": ["region"], **more})  # type: ignore[arg-type]

    def broken(value: float) -> PanelForecast:
        mean = forecast.mean.copy()
        mean[2, 1] = value
        return PanelForecast(mean, forecast.quantiles, LEVELS)

    cases: list[tuple[dict[str, object], type[Exception], str]] = [
        ({"total_forecasts": {"total": np.ones(H)}}, InputInvalid, "a forecast of region=north"),
        ({"by": ["regoin"]}, UnknownName, "did you mean 'region'"),
        ({"by": []}, InputInvalid, "at least one static attribute"),
        ({"method": "mint"}, UnknownName, "unknown method 'mint'"),
        ({"forecast": broken(np.nan)}, InputInvalid, "forecast means, row 2, step 2"),
        ({"forecast": broken(-1.0)}, InputInvalid, "forecast means, row 2, step 2"),
        ({"residuals": np.ones((3, 50))}, InputInvalid, "residuals: wanted a table"),
        ({"residuals": np.full((10, 50), np.nan)}, NotEnoughData, "residuals of every total"),
        ({"residuals": np.zeros((10, 50))}, InputInvalid, "residuals for mint_shrink"),
        ({"season": 60}, InputInvalid, "season"),
    ]
    for more, error, said in cases:
        with pytest.raises(error, match=said):
            asked(**more)


def test_the_extra_is_named_when_it_is_not_there() -> None:
    """Without hierarchicalforecast the module imports, bottom-up works, and the others name the extra to install."""
    code = (
        "import sys; sys.modules['hierarchicalforecast'] = None\n"
        "import numpy as np\n"
        "from contracts.errors import DependencyDown\n"
        "from models.hierarchy import reconcile\n"
        "from models.panel import Panel, PanelForecast\n"
        "kinds = {'kind': np.array(['x', 'y'], dtype=object)}\n"
        "shop = Panel(('a', 'b'), 'day', 0, np.arange(40.0).reshape(2, 20), static=kinds)\n"
        "flat = PanelForecast(np.ones((2, 3)), np.ones((2, 3, 1)), (0.5,))\n"
        "assert reconcile(shop, flat, ['kind'], None, 'bottom_up').mean[0].tolist() == [2, 2, 2]\n"
        "try:\n    reconcile(shop, flat, ['kind'])\n"
        "except DependencyDown as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    assert "hierarchicalforecast is not available" in done.stdout
    assert "install the extra: seatrial[hier]" in done.stdout


def test_real_stores_add_up() -> None:
    """Sixty Rossmann stores by type and assortment: coherent, not negative, totals within 2% of added up ones."""
    from benchmarks.reconciliation import BY, FILE, HORIZON, weekly
    from models.metrics import wape

    path = Path(os.environ.get("SEATRIAL_DATA", ROOT.parent / "shared" / "data")) / FILE
    if not path.exists():
        pytest.skip(f"no {path}: set SEATRIAL_DATA to the folder with the real data")
    stores = weekly(path, 60)
    missed: dict[str, list[Floats]] = {}
    for back in range(1, 5):
        cutoff = stores.periods - HORIZON * back
        past = stores.until(cutoff, 0)
        tree = hierarchy_of(past, BY)
        actual = (tree.sums @ stores.demand[:, cutoff : cutoff + HORIZON])[: tree.groups]
        for method in METHODS:
            made = reconcile(past, naive(past, HORIZON), BY, naive, method, season=52)
            sound(made)
            missed.setdefault(method, []).append(np.stack([actual, made.mean[: tree.groups]]))
    said = {method: np.concatenate(parts, axis=1) for method, parts in missed.items()}
    error = {method: wape(both[0].ravel(), both[1].ravel()) for method, both in said.items()}
    assert error["mint_shrink"] <= error["bottom_up"] * 1.02
