"""The quality rules of the event contracts as checks: business rules flag rows, technical ones stop a whole delivery.

A delivery is what one file brought. Compared with what has landed before, it shows what no row shows by itself: a
column that went empty, a unit that changed, ids of another kind. Rules that refuse single rows: `features.checks`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from contracts.events import EventContract, QualityRule, RuleLevel, event_contract
from features.checks import shown


@dataclass(frozen=True)
class Feed:
    """One kind's rows of one file.

    Attributes:
        kind: an event kind.
        good: canonical events that passed the row checks.
        rows: rows that came, the refused ones included.
        broken: row rule (`quantity.minimum`) -> rows that broke it.
    """

    kind: str
    good: pd.DataFrame
    rows: int
    broken: Mapping[str, int]


@dataclass(frozen=True)
class Breach:
    """A rule about deliveries that one does not keep. `rule`: `field.rule`, as in the contract."""

    rule: str
    wanted: str
    got: str


@dataclass(frozen=True)
class _Case:
    feed: Feed
    contract: EventContract
    fresh: pd.DataFrame
    history: pd.DataFrame
    keys: Mapping[str, Collection[str]]

    def enough(self, rule: QualityRule) -> bool:
        """True when both sides have the rows that the rule needs."""
        return min(len(self.fresh), len(self.history)) >= int(rule.options["minRows"])


def breaches(
    feed: Feed, history: pd.DataFrame, keys: Mapping[str, Collection[str]] | None = None
) -> tuple[Breach, ...]:
    """Rules about deliveries that this one breaks.

    Only rows with new event ids are compared with history, so that a file which repeats all of the past and adds a day
    is judged by that day. Rules that compare need `minRows` rows on both sides, the others `minRows` in the delivery.

    Args:
        delivery: what came.
        history: canonical events of the kind that landed before; may have no rows.
        keys: `kind.field` of a relationship -> the values that exist there.
    """
    contract = event_contract(feed.kind)
    fresh = feed.good
    if len(history):
        known = fresh["event_id"].isin(history["event_id"]).to_numpy()
        fresh = fresh[~known] if known.any() else fresh
    case = _Case(feed, contract, fresh, history, keys or {})
    return tuple(
        breach for rule in contract.rules if rule.check in _DELIVERY for breach in _DELIVERY[rule.check](rule, case)
    )


def relations(kind: str) -> tuple[str, ...]:
    """`kind.field` of the other kinds that the kind's rules look into."""
    return tuple(str(rule.options["of"]) for rule in event_contract(kind).rules_of("orphanShare"))


def flags(kind: str, frame: pd.DataFrame) -> pd.DataFrame:
    """What the business rules of a kind find odd; the rows count all the same.

    Args:
        kind: an event kind.
        frame: canonical events in landing order, history included.

    Returns:
        event_id, field, rule, flag: one row a finding.
    """
    parts = []
    for rule in event_contract(kind).rules:
        if rule.check in _FLAGS and len(frame):
            odd, words = _FLAGS[rule.check](rule, frame)
            ids = frame["event_id"].to_numpy(dtype=object)[odd]
            parts.append(
                pd.DataFrame({"event_id": ids, "field": rule.field, "rule": rule.id, "flag": words}, dtype=object)
            )
    empty = pd.DataFrame({name: pd.Series(dtype=object) for name in ("event_id", "field", "rule", "flag")})
    return pd.concat([part for part in parts if len(part)] or [empty], ignore_index=True)


def _invalid(rule: QualityRule, case: _Case) -> Iterator[Breach]:
    rows, limit = case.feed.rows, rule.options["mustBeLessThan"]
    for broken, count in case.feed.broken.items():
        column, _, name = broken.partition(".")
        if rows >= rule.options["minRows"] and 100 * count >= limit * rows:
            yield Breach(rule.named(column), f"under {limit}% of rows that break its rule {name}", _share(count, rows))


def _duplicates(rule: QualityRule, case: _Case) -> Iterator[Breach]:
    good, limit = case.feed.good, rule.options["mustBeLessThan"]
    for column in rule.options["properties"]:
        count = int(good[column].duplicated().sum())
        if len(good) >= rule.options["minRows"] and 100 * count >= limit * len(good):
            yield Breach(
                rule.named(column), f"under {limit}% of rows with a value from a row above", _share(count, len(good))
            )


def _null_rise(rule: QualityRule, case: _Case) -> Iterator[Breach]:
    if not case.enough(rule):
        return
    for item in case.contract.fields:
        if item.required:
            continue
        gone = int(case.fresh[item.name].isna().sum())
        if not gone:
            continue
        now, before = 100 * gone / len(case.fresh), 100 * float(case.history[item.name].isna().mean())
        vanished = gone == len(case.fresh) and before < rule.options["allNullBelow"]
        if vanished or now >= before + rule.options["points"]:
            wanted = f"about as many rows without a value as before ({before:.0f}%)"
            yield Breach(rule.named(item.name), wanted, _share(gone, len(case.fresh)))


def _new_share(rule: QualityRule, case: _Case) -> Iterator[Breach]:
    if not case.enough(rule):
        return
    here = case.fresh[rule.field].dropna()
    new = here[~here.isin(case.history[rule.field].unique())]
    limit = rule.options["percent"]
    if len(here) >= rule.options["minRows"] and 100 * len(new) >= limit * len(here):
        got = f"{_share(len(new), len(here))}, like {shown(new.iloc[0])}"
        yield Breach(rule.named(), f"under {limit}% of rows with a value that was never seen before", got)


def _unit_jump(rule: QualityRule, case: _Case) -> Iterator[Breach]:
    """The middle row against its series' usual value. Where deliveries vary by nature, more is allowed: twice what the
    most unusual stretch of as many rows of the history was."""
    if not case.enough(rule):
        return
    usual = _positive(case.history, rule).groupby(rule.options["by"], sort=False)[rule.field].median().rename("usual")
    now, before = (_orders(frame, usual, rule) for frame in (case.fresh, case.history))
    rows = len(now)
    if min(rows, len(before)) < rule.options["minRows"]:
        return
    stretches = before[len(before) % rows :].reshape(-1, rows)
    worst = float(np.abs(np.median(stretches, axis=1)).max(initial=0.0))
    shift, limit = float(np.median(now)), max(float(np.log10(rule.options["times"])), worst + float(np.log10(2)))
    if abs(shift) >= limit:
        wanted = f"under {10**limit:.2g} times what is usual by {', '.join(rule.options['by'])}, up or down"
        yield Breach(rule.named(), wanted, f"{10**shift:.3g} times in the middle one of {rows} rows")


def _positive(frame: pd.DataFrame, rule: QualityRule) -> pd.DataFrame:
    return frame.loc[frame[rule.field] > 0, [*rule.options["by"], rule.field]]


def _orders(frame: pd.DataFrame, usual: pd.Series[float], rule: QualityRule) -> np.ndarray:
    """log10 of positive values over their series' usual one; rows of series without any are left out."""
    held = _positive(frame, rule).join(usual, on=rule.options["by"])
    held = held[held["usual"].notna()]
    return np.asarray(np.log10(held[rule.field].to_numpy() / held["usual"].to_numpy()))


def _orphans(rule: QualityRule, case: _Case) -> Iterator[Breach]:
    """Shares of rows without a partner; where nobody announces any partner there is nothing to look into."""
    known, here = case.keys.get(rule.options["of"], ()), case.fresh[rule.field].dropna()
    if not len(known) or len(here) < rule.options["minRows"]:
        return
    count, limit = int((~here.isin(known)).sum()), rule.options["percent"]
    if 100 * count >= limit * len(here):
        yield Breach(rule.named(), f"under {limit}% of rows without a {rule.options['of']}", _share(count, len(here)))


def _share(count: int, rows: int) -> str:
    return f"{100 * count / rows:.0f}% ({count} of {rows})"


def _unusual(rule: QualityRule, frame: pd.DataFrame) -> tuple[np.ndarray, list[str]]:
    """Values of so many `times` the median of the series' positive values; short series are not judged."""
    places = np.flatnonzero((frame[rule.field] > 0).to_numpy())
    held = frame.iloc[places]
    series = held.groupby(rule.options["by"], sort=False)[rule.field]
    values = held[rule.field].to_numpy(dtype="float64")
    usual, rows = (series.transform(name).to_numpy(dtype="float64") for name in ("median", "size"))
    odd = np.flatnonzero((rows >= rule.options["minRows"]) & (values >= rule.options["times"] * usual))
    words = [
        f"{rule.field}: {value:g} is {value / middle:.0f} times the usual {middle:g}"
        for value, middle in zip(values[odd].tolist(), usual[odd].tolist(), strict=True)
    ]
    return places[odd], words


def _equals(rule: QualityRule, frame: pd.DataFrame) -> tuple[np.ndarray, list[str]]:
    odd = np.flatnonzero((frame[rule.field] == rule.options["value"]).to_numpy())
    return odd, [f"{rule.field}: is {rule.options['value']}"] * len(odd)


def _far(rule: QualityRule, frame: pd.DataFrame) -> tuple[np.ndarray, list[str]]:
    times = frame[rule.field]
    if times.isna().all():
        return np.empty(0, dtype=np.intp), []
    usual = times.median()
    odd = np.flatnonzero(((times - usual).abs() > pd.Timedelta(days=365.25 * rule.options["years"])).to_numpy())
    years = rule.options["years"]
    return odd, [
        f"{rule.field}: {time:%Y-%m-%d} is over {years} years from {usual:%Y-%m-%d}" for time in times.iloc[odd]
    ]


def _new_values(rule: QualityRule, frame: pd.DataFrame) -> tuple[np.ndarray, list[str]]:
    """The first row of each value that came after the first `after` rows and the first `days` of the history."""
    values, known = frame[rule.field], frame["known_at"].to_numpy(dtype="datetime64[us]")
    late = known > known.min() + np.timedelta64(rule.options["days"], "D")
    late[: rule.options["after"]] = False
    new = np.flatnonzero(late & values.notna().to_numpy() & ~values.duplicated().to_numpy())
    new = new[~values.iloc[new].isin(values[~late].unique()).to_numpy()]
    words = [
        f"{rule.field}: {shown(value)} is new after {row} rows"
        for value, row in zip(values.iloc[new], new, strict=True)
    ]
    return new, words


_DELIVERY: dict[str, Callable[[QualityRule, _Case], Iterator[Breach]]] = {
    "invalidValues": _invalid,
    "duplicateValues": _duplicates,
    "nullRise": _null_rise,
    "newShare": _new_share,
    "unitJump": _unit_jump,
    "orphanShare": _orphans,
}
_FLAGS: dict[str, Callable[[QualityRule, pd.DataFrame], tuple[np.ndarray, list[str]]]] = {
    "unusual": _unusual,
    "equals": _equals,
    "far": _far,
    "newValue": _new_values,
}
# What a contract's rules can ask for; `notLike` is a row check and refuses.
CHECKS: dict[RuleLevel, frozenset[str]] = {
    "technical": frozenset({"notLike", *_DELIVERY}),
    "business": frozenset(_FLAGS),
}
