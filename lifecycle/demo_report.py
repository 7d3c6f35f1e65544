"""The demo's report: one self-contained HTML page for people, one JSON file for programs."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.rollout import RolloutState
from lifecycle import demo_plots
from lifecycle.workspace import Workspace
from registry.ledger import head

if TYPE_CHECKING:
    from lifecycle.demo_results import Demo, Voyaged

TEMPLATE = Path(__file__).parent / "templates" / "demo.html.j2"


def write_report(ws: Workspace, demo: Demo) -> Path:
    """Write `demo.json` and `demo.html` into the reports folder, each in one move.

    Returns:
        path of the page.
    """
    summary = demo.summary()
    ws.settings.reports.mkdir(parents=True, exist_ok=True)
    page = _render(summary, [_section(ws, voyage) for voyage in demo.voyages])
    _replace(ws.settings.reports / "demo.html", page)
    _replace(ws.settings.reports / "demo.json", json.dumps(summary, indent=2))
    return ws.settings.reports / "demo.html"


def _replace(path: Path, text: str) -> None:
    temp = path.with_suffix(".tmp")
    temp.write_text(text, encoding="utf-8")
    temp.replace(path)


def _render(summary: dict[str, Any], sections: list[dict[str, Any]]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    loader = FileSystemLoader(TEMPLATE.parent)
    autoescape = select_autoescape(default=True, default_for_string=True)
    env = Environment(loader=loader, autoescape=autoescape, undefined=StrictUndefined)
    return env.get_template(TEMPLATE.name).render(summary=summary, sections=sections)


def _section(ws: Workspace, voyage: Voyaged) -> dict[str, Any]:
    forecast = voyage.policy.kind == "forecast"
    plots = [
        demo_plots.forecast_against_actual(voyage) if forecast else demo_plots.late_rate_calibration(voyage),
        demo_plots.traffic_by_version(voyage.story),
        demo_plots.drift_over_time(voyage.story),
    ]
    return {
        "model": voyage.policy.model,
        "owner": voyage.policy.owner.team,
        "hypothesis": voyage.policy.business.hypothesis,
        "verdict": verdict_in_words(voyage),
        "scores": {name: f"{value:.4g}" for name, value in voyage.scores.items()},
        "plots": plots,
        "trials": [_trial(at, trial) for at, trial in voyage.story.trials],
        "moves": [_move(at, action) for at, action in voyage.story.moves],
        "responses": [
            {"at": f"{at:%Y-%m-%d}", "response": answer.response.value, "reason": answer.reason}
            for at, answer in voyage.story.responses
            if answer.response.value != "nothing"
        ],
        "state": _state(ws.registrar.state(voyage.policy.model)),
        "anchor": str(head(ws.ledger.rows(voyage.policy.model), voyage.policy.model)),
    }


def _trial(at: datetime, trial: Any) -> dict[str, Any]:
    return {
        "at": f"{at:%Y-%m-%d}",
        "version": trial.version,
        "rows": trial.trained.rows,
        "outcome": trial.verdict.outcome.value,
        "criteria": [{"name": c.name, "outcome": c.outcome.value, "words": c.words} for c in trial.verdict.criteria],
    }


def _move(at: datetime, action: Any) -> dict[str, str]:
    return {
        "at": f"{at:%Y-%m-%d}",
        "move": action.move.value.replace("_", " "),
        "version": action.version or "",
        "reason": action.reason,
    }


def _state(state: RolloutState) -> str:
    words = f"champion {state.champion or 'none'}"
    if state.previous_champion:
        words += f", before it {state.previous_champion}"
    if state.challenger:
        words += f"; challenger {state.challenger} in {state.stage.value} at {state.share:.0%}"
    return words


def verdict_in_words(voyage: Voyaged) -> str:
    """One sentence for the owner: how much better or worse than the rule the served answers were."""
    scores = voyage.scores
    name = "rmsse" if voyage.policy.kind == "forecast" else "brier"
    ours, rule = scores[f"champion_{name}"], scores[f"incumbent_{name}"]
    gain = 1 - ours / rule if rule else 0.0
    direction = "better" if gain >= 0 else "worse"
    return (
        f"Served answers were {abs(gain):.1%} {direction} than the rule {voyage.policy.incumbent} by {name.upper()} "
        f"({ours:.4f} against {rule:.4f}) on {int(scores['rows'])} matured rows."
    )
