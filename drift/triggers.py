"""What the policy makes of the judged windows: nothing, an alert, or a retraining. Pure: values in, value out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from contracts.monitoring import Health, MonitorDecision, Response, WindowVerdict
from contracts.policy import Policy
from contracts.times import iso, utc, write_duration


def respond(
    windows: Sequence[WindowVerdict],
    last_retrains: Sequence[datetime],
    champion_since: datetime,
    policy: Policy,
    now: datetime,
    events: Sequence[str] = (),
    unsafe: Sequence[str] = (),
    overridden: Collection[datetime] = (),
) -> MonitorDecision:
    """The policy's response to what is known now.

    A wish comes first: K of the last N **judged** windows in violation, the champion's age, or a named business event.
    The wish is then held against the veto (data broken, or its sources not safe for automation), the cooldown, the
    budget and whether a person must agree. Too little data since a broken window does not mend it: the veto stays.

    Args:
        windows: verdicts on windows of the present champion, any order; the last by end is the present one. Windows
            without enough data are not judged: they neither count nor push judged ones out.
        last_retrains: when retrainings were started, any order, successful or not.
        champion_since: when the present champion took office.
        policy: the model's policy.
        now: the present moment, with zone.
        events: names of business events since the later of champion_since and the last retraining.
        unsafe: why sources that the model's features need are not safe for automation, in words; empty when they are.
        overridden: ends of windows whose alarm a person overrode: they neither count, nor alert, nor veto.

    Returns:
        retrain only when a wish stands and nothing is against it; alert when a wish is held back, or the newest window
        is broken, degraded or drifted; otherwise nothing. The reason says which, in a sentence.

    Raises:
        TimeInvalid: a time without zone.
    """
    now = utc(now, "now")
    started = sorted(utc(at, "last_retrains") for at in last_retrains)
    ordered = sorted((w for w in windows if w.end <= now), key=lambda w: w.end)
    silenced = bool(ordered) and ordered[-1].end in overridden
    ordered = [w for w in ordered if w.end not in overridden]
    newest = ordered[-1] if ordered and not silenced else None
    wish = _wish(ordered, started, utc(champion_since, "champion_since"), policy, now, events)
    if wish:
        known = [w for w in ordered if w.health is not Health.NOT_ENOUGH]
        against = _against(known[-1] if known and not silenced else None, started, policy, now, unsafe)
        if against:
            return MonitorDecision(Response.ALERT, f"retraining wanted ({wish}), but {against}")
        return MonitorDecision(Response.RETRAIN, wish)
    if silenced:
        return MonitorDecision(Response.NOTHING, "a person overrode the alarm of the newest window")
    if newest is None:
        return MonitorDecision(Response.NOTHING, "not enough data: no window was judged yet")
    words = "; ".join(finding.words for finding in newest.findings)
    if newest.health is Health.NOT_ENOUGH:
        return MonitorDecision(Response.NOTHING, f"not enough data: {words}" if words else "not enough data")
    if newest.health is Health.OK:
        return MonitorDecision(Response.NOTHING, "the newest window is as the gate promised")
    return MonitorDecision(Response.ALERT, f"{newest.health.value}: {words}")


def _wish(
    ordered: list[WindowVerdict],
    started: list[datetime],
    champion_since: datetime,
    policy: Policy,
    now: datetime,
    events: Sequence[str],
) -> str:
    when = policy.retrain.when
    judged = [w for w in ordered if w.health is not Health.NOT_ENOUGH][-when.of_last :]
    bad = [w for w in judged if w.violation]
    if len(bad) >= when.violations:
        figures = "; ".join(f.words for f in bad[-1].findings if f.kind == "performance")
        return f"{len(bad)} of the last {len(judged)} judged windows in violation: {figures or 'degraded'}"
    named = [event for event in events if event in when.or_event]
    if named:
        return f"business event {', '.join(dict.fromkeys(named))}"
    since = max([champion_since, *(at for at in started if at <= now)])
    if when.max_age is not None and now - since >= when.max_age:
        return f"no retraining for {(now - since).days} days, {write_duration(when.max_age)} is the most"
    return ""


def _against(
    judged: WindowVerdict | None, started: list[datetime], policy: Policy, now: datetime, unsafe: Sequence[str]
) -> str:
    rule = policy.retrain
    if rule.veto == "data_broken" and judged is not None and judged.health is Health.BROKEN:
        broken = "; ".join(f.words for f in judged.findings if f.kind == "broken_data")
        return f"the data is broken: {broken}"
    if rule.veto == "data_broken" and unsafe:
        return f"its sources are not safe for automation: {'; '.join(unsafe)}"
    # A start that lies in the future (a clock was put back) holds as well: better late than twice.
    if started and now < started[-1] + rule.cooldown:
        return f"the last one started {iso(started[-1])} and the cooldown is {write_duration(rule.cooldown)}"
    spent = sum(1 for at in started if at > now - rule.budget.per)
    if spent >= rule.budget.runs:
        return f"the budget of {rule.budget.runs} in {write_duration(rule.budget.per)} is spent"
    if policy.automate.retrain == "approval":
        return "the policy wants a person to start it (automate.retrain: approval)"
    return ""
