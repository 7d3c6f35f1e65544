"""A policy's replay and a diff of policies, for people."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from registry.policy_diff import Change, policy_diff

if TYPE_CHECKING:
    from lifecycle.policy_replay import Replayed
    from lifecycle.policy_replay_side import Happening, Side


def diff_table(changes: Iterable[Change], old: str, new: str) -> Table:
    """One row a changed key."""
    table = Table(title=f"{old} -> {new}")
    for name in ("key", "was", "is", "way", "what it means"):
        table.add_column(name, overflow="fold")
    for change in changes:
        table.add_row(change.key, _shown(change.old), _shown(change.new), change.way.value, change.means)
    return table


def _shown(value: object) -> str:
    return "-" if value is None else str(value)


def replay_page(found: Replayed) -> Group:
    """What is different, what happened beside what would have, the sums, what is not known, and the self-check."""
    changes = policy_diff(found.recorded.policy, found.policy)
    parts: list[RenderableType] = []
    if changes:
        parts.append(diff_table(changes, found.recorded.record, "this policy"))
    else:
        parts.append(Text("the policy decides the same as the one on record"))
    parts += [_timeline(found), _sums(found), Text(verdict(found))]
    for title, told in (("Not known", found.course.notes), ("Waits for a person", found.course.waits)):
        if told:
            parts.append(Text(f"{title}:\n" + "\n".join(f"  {at:%Y-%m-%d} {words}" for at, words in told)))
    parts.append(Text("\n".join([found.check.words, *_differing(found)])))
    return Group(*parts)


def _differing(found: Replayed) -> list[str]:
    told = [f"  {words}" for words in found.check.differing]
    return [*told, *(f"  because {words}" for words in found.check.causes)]


def _timeline(found: Replayed) -> Table:
    """Moves and retrainings of both sides by day; what both did stands in one line."""
    title = f"{found.policy.model}, {found.span.since:%Y-%m-%d} to {found.span.until:%Y-%m-%d}"
    table = Table(title=title)
    for name in ("day", "what happened", "under this policy", "why"):
        table.add_column(name)
    for day, left, right in merged(found.happened.happenings, found.replayed.happenings):
        told = left.words if left else ""
        would = right.words if right else ""
        one = right or left
        table.add_row(f"{day:%Y-%m-%d}", told, would, "" if one is None else _short(one.reason))
    return table


def merged(
    happened: list[Happening], replayed: list[Happening]
) -> list[tuple[datetime, Happening | None, Happening | None]]:
    """Happenings of both sides by day, equal ones of a day side by side; alerts are left to the sums."""
    left = [one for one in happened if one.kind != "alert"]
    right = [one for one in replayed if one.kind != "alert"]
    rows: list[tuple[datetime, Happening | None, Happening | None]] = []
    for one in left:
        same = next((o for o in right if o.identity == one.identity and o.at.date() == one.at.date()), None)
        if same is not None:
            right.remove(same)
        rows.append((one.at, one, same))
    rows += [(one.at, None, one) for one in right]
    return sorted(rows, key=lambda row: row[0])


def _short(words: str, most: int = 100) -> str:
    return words if len(words) <= most else words[: most - 3] + "..."


def _sums(found: Replayed) -> Table:
    table = Table(title="sums")
    for name in ("", "what happened", "under this policy"):
        table.add_column(name)
    loss = found.losses
    metric = f"{loss['metric']} of {loss['decisions']} decisions (the rule: {loss['incumbent']:.4f})"
    table.add_row(metric, f"{loss['happened']:.4f}", f"{loss['replayed']:.4f}")
    table.add_row("answered by", _by(found.happened), _by(found.replayed))
    for kind in ("promoted", "held", "rejected", "rolled_back", "superseded", "expired"):
        left, right = (len(side.of(kind)) for side in (found.happened, found.replayed))
        if left or right:
            table.add_row(kind.replace("_", " "), str(left), str(right))
    for name in ("retrains", "alarms", "reviews"):
        table.add_row(name, *(str(getattr(side, name)) for side in (found.happened, found.replayed)))
    currency = found.policy.business.costs.currency
    if any(found.cost_happened.values()) or any(found.cost_replayed.values()):
        for name, value in found.cost_happened.items():
            table.add_row(f"cost: {name}", f"{value:,.0f} {currency}", f"{found.cost_replayed[name]:,.0f} {currency}")
    return table


def _by(side: Side) -> str:
    return ", ".join(f"{version} {count}" for version, count in side.answered().items())


def verdict(found: Replayed) -> str:
    """The comparison of losses in a sentence."""
    loss = found.losses
    if not loss["decisions"]:
        return "No decision of the span has a known outcome on both sides: nothing can be measured."
    if not loss["answered_otherwise"]:
        return f"All {loss['decisions']} decisions with a known outcome would have been answered as they were."
    by, low, high = loss["better_by"], loss["better_by_low"], loss["better_by_high"]
    words = "less" if by >= 0 else "more"
    return (
        f"{loss['answered_otherwise']} of {loss['decisions']} decisions would have been answered otherwise: "
        f"{abs(by):.1%} {words} {loss['metric']} "
        f"({loss['confidence']:.0%} bounds of the improvement {low:+.1%} to {high:+.1%})."
    )
