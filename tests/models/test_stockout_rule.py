"""The stock-out rule: right against brute force, monotone, the same to the bit, and clear about bad input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr

from contracts.errors import InputInvalid, NotEnoughData, UnknownName
from models.demand_paths import PATHS, StepDemand, knots_of, path_ranks, step_correlation
from models.lead_time import LeadTime, fixed_lead_time, observed_lead_times
from models.order_terms import Terms, critical_ratio
from models.stockout import Advice, Stock, advise

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
DRAWS = 100_000


def demand(*rows: list[float], steps: int = 12) -> StepDemand:
    """Each row's quantiles at every step."""
    return StepDemand(np.repeat(np.array(rows)[:, None, :], steps, axis=1), LEVELS)


def one(hand: float, lead: int = 3, *, row: list[float] | None = None, **terms: object) -> Advice:
    """Advice on one series."""
    given_terms = replace(Terms(service_level=0.95), **terms)  # type: ignore[arg-type]
    return advise(demand(row or [1, 2, 3, 5, 8]), Stock(np.array([hand])), fixed_lead_time(lead), given_terms)


def simulated(row: list[float], correlation: float, leads: list[int], hand: float) -> tuple[float, float, float]:
    """Probability, expected short and the need for 0.9 from many independent random paths; review 1."""
    rng = np.random.default_rng(5)
    edges, low = np.array([0.0, *LEVELS]), max(row[0] - (row[1] - row[0]) / 0.15 * 0.1, 0.0)
    tail = (row[-1] - row[-2]) / np.log(2.5)
    score, lead = rng.normal(size=DRAWS), rng.choice(leads, DRAWS)
    asked, worst, need = np.zeros(DRAWS), np.full(DRAWS, -hand), np.full(DRAWS, -np.inf)
    for step in range(1, max(leads) + 2):
        if step > 1:
            score = correlation * score + np.sqrt(1 - correlation**2) * rng.normal(size=DRAWS)
        chance = ndtr(score)
        beyond = row[-1] + tail * np.log(0.1 / np.maximum(1 - chance, 1e-7))
        asked = asked + np.where(chance > 0.9, beyond, np.interp(chance, edges, [low, *row]))
        inside = step <= lead + 1
        worst = np.where(inside, np.maximum(worst, asked - hand), worst)
        need = np.where(inside & (step > lead), np.maximum(need, asked - hand), need)
    return float((worst > 0).mean()), float(np.maximum(worst, 0).mean()), float(np.quantile(need, 0.9))


@pytest.mark.parametrize("correlation", [0.0, 0.4, 0.9])
@pytest.mark.parametrize("leads", [[5], [2, 4, 9]])
@pytest.mark.parametrize("row", [[1, 2, 3, 5, 8], [0, 0, 0, 2, 5]])
def test_it_agrees_with_brute_force(correlation: float, leads: list[int], row: list[float]) -> None:
    """Probability within 0.02, shortage and need within 7% of 100,000 random paths, whatever the dependence."""
    hand = 1.1 * float(np.mean(row)) * (float(np.mean(leads)) + 1)
    terms = Terms(service_level=0.9, multiple=0.0)
    found = advise(
        demand(row), Stock(np.array([hand])), observed_lead_times(leads), terms, correlation=correlation
    )  # fmt: skip
    probability, short, need = simulated(row, correlation, leads, hand)
    assert found.probability[0] == pytest.approx(probability, abs=0.02)
    assert found.short[0] == pytest.approx(short, rel=0.07)
    assert found.need[0] + hand == pytest.approx(need + hand, rel=0.07)


def test_each_step_has_the_distribution_of_its_quantiles() -> None:
    """A step's paths fall under each quantile as often as its level says, and their mean is the one that was given."""
    mean = 6.0  # more than the quantiles alone would give: the tail has to bring the rest
    knots = knots_of(StepDemand(np.array([[[1.0, 2, 3, 5, 8]]]), LEVELS, np.array([[mean]])))
    units = knots.at(slice(None), 0, np.arange(PATHS))[0]
    assert [(units <= q).mean() for q in (1, 2, 3, 5, 8)] == pytest.approx(LEVELS, abs=1 / PATHS)
    assert units.mean() == pytest.approx(mean, rel=0.01)


def test_ranks_do_not_depend_on_how_far_one_looks() -> None:
    """The ranks of a step are the same however many steps follow, and each is used once."""
    short, long = path_ranks(5, 0.3), path_ranks(40, 0.3)
    assert all((a == b).all() for a, b in zip(short, long, strict=False))
    assert all((np.sort(rank) == np.arange(PATHS)).all() for rank in long)


def test_the_same_inputs_give_the_same_bits_alone_or_in_a_batch() -> None:
    """One of 150 series asked alone gets exactly the figures it gets in the batch, and so does a second run."""
    rng = np.random.default_rng(2)
    rows = np.sort(rng.gamma(2, 3, (150, 9, 5)), axis=2)
    hand, coming = rng.uniform(0, 60, 150), rng.poisson(1, (150, 9)).astype(float)
    leads = LeadTime(rng.dirichlet(np.ones(8), 150))

    def asked(part: slice) -> Advice:
        stock, terms = Stock(hand[part], coming[part]), Terms(service_level=0.9)
        return advise(StepDemand(rows[part], LEVELS), stock, LeadTime(leads.shares[part]), terms, correlation=0.3)

    whole, again, single = asked(slice(None)), asked(slice(None)), asked(slice(100, 101))
    for name in ("probability", "short", "reorder_point", "need", "order", "service", "short_after"):
        assert (getattr(whole, name) == getattr(again, name)).all()
        assert getattr(whole, name)[100] == getattr(single, name)[0]


service = st.floats(0.0, 0.999)
quantiles = st.lists(st.floats(0, 50), min_size=5, max_size=5).map(sorted)


@settings(deadline=None, max_examples=80)
@given(quantiles, st.floats(-5, 300), st.floats(0, 100), st.integers(0, 8), st.sampled_from([0.0, 0.5, 1.0]))
def test_more_stock_never_makes_it_worse(
    row: list[float], hand: float, more: float, lead: int, correlation: float
) -> None:
    """More on hand or on order never raises probability, shortage or order."""
    terms, arrival = Terms(service_level=0.9), np.zeros((3, 12))
    arrival[2, 1] = more
    found = advise(
        demand(row, row, row), Stock(np.array([hand, hand + more, hand]), arrival), fixed_lead_time(lead), terms,
        correlation=correlation,
    )  # fmt: skip
    for better in (1, 2):
        assert found.probability[better] <= found.probability[0]
        assert found.short[better] <= found.short[0] + 1e-9
        assert found.order[better] <= found.order[0]


@settings(deadline=None, max_examples=80)
@given(
    quantiles, st.floats(0, 100), st.floats(0.0, 0.999), st.floats(0.0, 0.999), st.sampled_from(["lost", "backordered"])
)
def test_a_higher_service_level_never_lowers_the_order(
    row: list[float], hand: float, first: float, second: float, unmet: str
) -> None:
    """Need, order, reorder point and the service that is reached rise with the service level."""
    terms = Terms(service_level=np.array(sorted([first, second])), minimum=7.0, multiple=3.0, unmet=unmet)  # type: ignore[arg-type]
    found = advise(demand(row, row), Stock(np.array([hand, hand])), fixed_lead_time(4), terms)
    for name in ("need", "order", "reorder_point", "service"):
        assert getattr(found, name)[1] >= getattr(found, name)[0]


@settings(deadline=None, max_examples=80)
@given(quantiles, st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(1, 2), st.floats(0, 100))
def test_a_longer_lead_time_never_lowers_the_reorder_point(
    row: list[float], leads: list[int], longer: int, hand: float
) -> None:
    """With every delivery later, the reorder point and the probability are never lower."""
    stock, terms = Stock(np.array([hand])), Terms(service_level=0.9)
    short = advise(demand(row), stock, observed_lead_times(leads), terms)
    long = advise(demand(row), stock, observed_lead_times([each + longer for each in leads]), terms)
    assert long.reorder_point[0] >= short.reorder_point[0] - 1e-9
    assert long.probability[0] >= short.probability[0]


@settings(deadline=None, max_examples=80)
@given(quantiles, st.floats(0, 100), st.floats(0, 90), st.just(0.0) | st.floats(1e-6, 25), st.floats(0, 200))
def test_an_order_keeps_to_its_terms(
    row: list[float], hand: float, minimum: float, multiple: float, over: float
) -> None:
    """An order is 0 or a multiple between minimum and maximum, covers the need where it may, and nothing more."""
    maximum = minimum + 2 * multiple + over + 1
    found = one(hand, row=row, minimum=minimum, multiple=multiple, maximum=maximum)
    order, need = found.order[0], found.need[0]
    if need == 0:
        assert order == 0
        return
    assert minimum - 1e-6 <= order <= maximum + 1e-6
    if multiple > 0:
        assert order / multiple == pytest.approx(round(order / multiple), abs=1e-6)
    assert order <= max(need, minimum) + multiple + 1e-6
    assert order >= need - 1e-6 or order > maximum - multiple - 1e-6


def test_zero_demand_needs_nothing() -> None:
    """An item that nobody asks for never runs out, not even with nothing on hand, and nothing is ordered."""
    found = one(0.0, row=[0, 0, 0, 0, 0], minimum=10.0)
    assert (found.probability[0], found.short[0], found.order[0], found.reorder_point[0]) == (0, 0, 0, 0)
    assert found.reasons[0].startswith("order nothing")


def test_a_shelf_that_is_exactly_emptied_is_not_out_of_stock() -> None:
    """Demand of 0.1 a period for four periods against 0.4 on hand: no stock-out, whatever the sums' last bits."""
    row = [0.1] * 5
    assert one(0.4, row=row).probability[0] == 0
    assert one(0.39, row=row).probability[0] == 1


def test_no_lead_time_covers_the_review_alone() -> None:
    """An order that is there at once has to serve the periods until the next chance only."""
    found = one(0.0, lead=0, row=[3, 3, 3, 3, 3], review=2)
    assert (found.reorder_point[0], found.order[0], found.short_after[0]) == (6, 6, 0)


def test_units_on_order_that_come_late_do_not_prevent_the_stock_out() -> None:
    """30 units that come after the shelf is empty change the need, not the probability; after the interval, nothing."""
    arriving = np.zeros((4, 6))
    arriving[0, 1] = arriving[1, 3] = arriving[2, 5] = 30
    found = advise(
        demand(*[[5.0] * 5] * 4),
        Stock(np.full(4, 10.0), arriving),
        fixed_lead_time(3),
        Terms(service_level=0.95),
    )
    assert found.probability.tolist() == [0, 1, 1, 1]
    assert found.order.tolist() == [0, 0, 10, 10]
    assert "30 more on order come after the interval" in found.reasons[2]
    assert found.inputs["on_order_later"].tolist() == [0, 0, 30, 0]


def test_lost_demand_is_not_ordered_again() -> None:
    """With an empty shelf, demand before the order comes is in the order only where it stays owed."""
    owed, lost = one(0.0, row=[5.0] * 5), one(0.0, row=[5.0] * 5, unmet="lost")
    assert (owed.order[0], lost.order[0]) == (20, 5)
    assert owed.reorder_point[0] == lost.reorder_point[0]


def test_the_order_minimum_above_the_need_is_ordered_and_said() -> None:
    """A minimum above the need is ordered whole; the reason names minimum and surplus."""
    found = one(17.0, row=[5.0] * 5, minimum=50.0)
    assert (found.need[0], found.order[0]) == (3, 50)
    assert "the order minimum is 50: 47 above the need" in found.reasons[0]


def test_the_maximum_says_what_it_reaches() -> None:
    """An order that is cut short names the maximum and the service level that it reaches, which is below the wanted."""
    found = one(0.0, maximum=10.0, multiple=4.0)
    assert found.order[0] == 8
    assert found.service[0] < 0.95
    assert f"the maximum of 10 allows no more: it reaches {found.service[0]:.1%}" in found.reasons[0]


def test_costs_make_the_service_level() -> None:
    """A unit short at 19 and one left over at 1 order exactly what a service level of 0.95 orders."""
    by_costs = one(3.0, service_level=None, shortage_cost=19.0, holding_cost=1.0)
    assert by_costs.order[0] == one(3.0).order[0]
    assert by_costs.inputs["service_level"][0] == pytest.approx(0.95)
    assert "a unit short costs 19, one left over 1" in by_costs.reasons[0]


def test_the_critical_ratio_costs_least() -> None:
    """No other order has a lower expected cost on the rule's own paths than the one at the critical ratio."""
    shortage, holding, step = 4.0, 1.0, 0.25
    found = one(0.0, lead=0, service_level=None, shortage_cost=shortage, holding_cost=holding, multiple=0.0)
    knots, ranks = knots_of(demand([1, 2, 3, 5, 8])), path_ranks(1, 0.0)
    units = knots.at(slice(None), 0, ranks[1])[0]

    def cost(order: float) -> float:
        return float((shortage * np.maximum(units - order, 0) + holding * np.maximum(order - units, 0)).mean())

    best = found.order[0]
    assert all(cost(best) <= cost(best + move * step) + 1e-9 for move in (-8, -4, -1, 1, 4, 8))


def test_a_cost_of_zero_is_answered() -> None:
    """Free shortage orders nothing; free stock orders to 0.999 and says why; both free is refused."""
    nothing = one(0.0, service_level=None, shortage_cost=0.0, holding_cost=2.0)
    assert nothing.order[0] == 0
    assert "nothing is worth stocking" in nothing.reasons[0]
    most = one(0.0, service_level=None, shortage_cost=2.0, holding_cost=0.0)
    assert most.inputs["service_level"][0] == 0.999
    assert "the most that a forecast's tail supports" in most.reasons[0]
    with pytest.raises(InputInvalid, match=r"shortage_cost and holding_cost of series 0: wanted at least one above 0"):
        one(0.0, service_level=None, shortage_cost=0.0, holding_cost=0.0)
    assert critical_ratio(np.array([3.0]), np.array([1.0])) == pytest.approx([0.75])


def test_an_interval_beyond_the_forecast_is_refused_or_declared() -> None:
    """A lead time that ends after the forecast names the series and both lengths; with a season, the answer says so."""
    week = StepDemand(np.repeat(np.arange(1.0, 8.0)[None, :, None], 5, axis=2), LEVELS)
    stock, terms = Stock(np.array([0.0])), Terms(service_level=0.5)
    with pytest.raises(InputInvalid, match=r"forecast of soap: wanted 10 steps: lead time and review, got 7"):
        advise(week, stock, fixed_lead_time(9), terms, keys=("soap",))
    found = advise(week, stock, fixed_lead_time(9), terms, season=7)
    assert found.reorder_point[0] == pytest.approx(28 + 1 + 2 + 3)
    assert found.inputs["steps_repeated"][0] == 3
    assert found.about["season_repeated"] == 7
    assert "the forecast ends 3 periods early" in found.reasons[0]


def test_only_the_series_whose_lead_time_is_too_long_is_named() -> None:
    """Of two series the one whose interval fits is not what the error names."""
    with pytest.raises(InputInvalid, match="forecast of far:"):
        advise(
            demand([1.0] * 5, [1.0] * 5), Stock(np.zeros(2)), fixed_lead_time([2, 12]), Terms(service_level=0.9),
            keys=("near", "far"),
        )  # fmt: skip


NAN = float("nan")


@pytest.mark.parametrize(
    ("field", "named"),
    [
        ({"hand": NAN}, "on_hand of tea"),
        ({"coming": NAN}, "on_order of tea, step 2"),
        ({"coming": -1.0}, "on_order of tea, step 2"),
        ({"service_level": NAN}, "service_level of tea"),
        ({"service_level": 1.0}, "service_level of tea"),
        ({"service_level": None, "shortage_cost": NAN, "holding_cost": 1.0}, "shortage_cost of tea"),
        ({"service_level": None, "shortage_cost": 1.0, "holding_cost": -1.0}, "holding_cost of tea"),
        ({"service_level": None}, "terms"),
        ({"shortage_cost": 1.0, "holding_cost": 1.0}, "terms"),
        ({"minimum": NAN}, "order_minimum of tea"),
        ({"multiple": -2.0}, "order_multiple of tea"),
        ({"multiple": 1e-300}, "order_multiple of tea"),
        ({"maximum": NAN}, "order_maximum of tea"),
        ({"minimum": 20.0, "multiple": 12.0, "maximum": 23.0}, "order_maximum of tea"),
        ({"review": 0}, "review"),
    ],
)
def test_a_bad_figure_is_named(field: dict[str, object], named: str) -> None:
    """A missing or impossible figure is refused by its name and the series'; no answer is made up."""
    arrival = np.zeros((1, 3))
    arrival[0, 1] = field.pop("coming", 0.0)
    stock = Stock(np.array([field.pop("hand", 1.0)], dtype=float), arrival)
    terms = replace(Terms(service_level=0.9), **field)  # type: ignore[arg-type]
    with pytest.raises(InputInvalid, match=f"^{named}: wanted"):
        advise(demand([1, 2, 3, 5, 8]), stock, fixed_lead_time(1), terms, keys=("tea",))


def test_a_bad_forecast_is_named() -> None:
    """Crossing, negative or missing quantiles and means are refused with series and step."""
    good = np.repeat(np.array([[1.0, 2, 3, 5, 8]])[:, None, :], 3, axis=1)
    for value, named in ((NAN, "finite units"), (-1.0, "finite units"), (0.5, "do not fall")):
        bad = good.copy()
        bad[0, 1, 2] = value
        with pytest.raises(InputInvalid, match=f"^quantiles of series 0, step 2: .*{named}"):
            StepDemand(bad, LEVELS)
    with pytest.raises(InputInvalid, match=r"^mean of series 0, step 3"):
        StepDemand(good, LEVELS, np.array([[1.0, 1.0, NAN]]))
    for levels in ((0.1, 0.25, 0.5, 0.75), (0.1, 0.25, 0.5, 0.9, 0.75), (0.0, 0.25, 0.5, 0.75, 0.9)):
        with pytest.raises(InputInvalid):
            StepDemand(good, levels)


def test_a_bad_lead_time_is_named() -> None:
    """Negative, broken or missing lead times, and shares that do not sum to 1, are refused."""
    for bad in (-1.0, 1.5, NAN):
        with pytest.raises(InputInvalid, match="lead time, row 1"):
            fixed_lead_time([2.0, bad])
    with pytest.raises(InputInvalid, match="lead time shares, row 0"):
        LeadTime(np.array([[0.5, 0.4]]))
    with pytest.raises(NotEnoughData):
        observed_lead_times([])
    with pytest.raises(InputInvalid, match="lead time shares: wanted 1 row, or 1"):
        advise(demand([1.0] * 5), Stock(np.zeros(1)), fixed_lead_time([1, 2]), Terms(service_level=0.9))
    with pytest.raises(UnknownName, match="did you mean 'lost'"):
        one(0.0, unmet="losst")


def test_the_correlation_of_a_backtest_is_found_again() -> None:
    """Paths made with a correlation give that correlation back; independent ones give next to none."""
    rng = np.random.default_rng(8)
    rows = 1500
    flat = demand(*[[1.0, 2, 3, 5, 8]] * rows, steps=7)
    knots = knots_of(flat)
    for correlation in (0.0, 0.6):
        picked = np.stack(path_ranks(7, correlation)[1:])[:, rng.integers(0, PATHS, rows)]
        actual = np.stack([knots.at(slice(0, 1), step, picked[step])[0] for step in range(7)], axis=1)
        assert step_correlation(actual, flat) == pytest.approx(correlation, abs=0.06)
    with pytest.raises(NotEnoughData):
        step_correlation(np.full((rows, 7), np.nan), flat)


def test_dependence_widens_the_total() -> None:
    """The reorder point rises with the correlation up to the sum of the steps' own quantiles."""
    points = [
        advise(demand([1, 2, 3, 5, 8]), Stock(np.zeros(1)), fixed_lead_time(7), Terms(service_level=0.9), correlation=c)
        .reorder_point[0]
        for c in (0.0, 0.3, 0.8, 1.0)
    ]  # fmt: skip
    assert points == sorted(points)
    assert points[-1] == pytest.approx(8 * 8.0, rel=0.01)
