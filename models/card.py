"""The model card: what it is, what made it, how it did, where it is weak; JSON for machines, HTML for people."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment

from contracts.canonical import canonical_json
from contracts.evaluation import Evaluation, TrainedModel
from contracts.policy import Policy
from contracts.times import iso, write_duration
from models.forecaster import ForecastModel
from models.risk import RiskModel

CARD_FORMAT = 1
SHOWN_COLUMNS = 20
TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Model card: {{ card.model }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1d2733; }
table { border-collapse: collapse; margin: .6rem 0 1.4rem; } th, td { padding: .2rem .8rem .2rem 0; text-align: left; }
th { border-bottom: 1px solid #bbb; } td.n { text-align: right; font-variant-numeric: tabular-nums; }
img { max-width: 100%; } code { font-size: .85em; word-break: break-all; }
</style></head><body>
<h1>{{ card.model }}</h1>
<p>{{ card.purpose }} Owner: {{ card.owner }}. Business metric: {{ card.business_metric }}.</p>
<h2>In short</h2><p>{{ card.summary }}</p>
<h2>Backtest</h2>
{% for title, table in tables %}<h3>{{ title }}</h3>
<table><tr>{% for name in table.columns %}<th>{{ name }}</th>{% endfor %}</tr>
{% for row in table.itertuples(index=False) %}<tr>{% for cell in row %}
<td{% if cell is not string %} class="n"{% endif %}>
{{ cell if cell is string else "%.4g" | format(cell) }}</td>{% endfor %}</tr>{% endfor %}</table>{% endfor %}
{% for name, data in figures %}<p><img alt="{{ name }}" src="data:image/png;base64,{{ data }}"></p>{% endfor %}
<h2>Limits</h2><ul>{% for line in card.limits %}<li>{{ line }}</li>{% endfor %}</ul>
<h2>Provenance</h2><table>{% for name, value in card.provenance.items() %}
<tr><th>{{ name }}</th><td><code>{{ value }}</code></td></tr>{% endfor %}</table>
</body></html>
"""


def write_card(out: Path, policy: Policy, trained: TrainedModel, model: ForecastModel | RiskModel) -> None:
    """Write card.json and card.html into `out`; the HTML is one file that needs nothing else."""
    found = trained.evaluation
    card = _card(policy, trained, model)
    (out / "card.json").write_text(canonical_json(card), encoding="utf-8")
    figures = [
        (name, base64.b64encode(path.read_bytes()).decode("ascii")) for name, path in sorted(trained.figures.items())
    ]
    page = Environment(autoescape=True).from_string(TEMPLATE)
    (out / "card.html").write_text(page.render(card=card, tables=_tables(found), figures=figures), encoding="utf-8")


def _card(policy: Policy, trained: TrainedModel, model: ForecastModel | RiskModel) -> dict[str, Any]:
    found = trained.evaluation
    plan = policy.training
    return {
        "format": CARD_FORMAT,
        "model": policy.model,
        "kind": policy.kind,
        "purpose": f"Hypothesis: {policy.business.hypothesis}.",
        "business_metric": policy.business.metric,
        "owner": policy.owner.team,
        "summary": _summary(policy, found),
        "calibration": found.calibration,
        "importance": dict(list(model.importance().items())[:SHOWN_COLUMNS]),
        "limits": _limits(policy, found),
        "provenance": {
            "trained at": iso(trained.trained_at),
            "training rows": str(trained.rows),
            "backtest": f"{len(found.dataset['origins'])} origins every {write_duration(plan.every)}, "
            f"{found.dataset['rows']} rows scored, "
            f"from {found.dataset['as_of_from']} to {found.dataset['as_of_until']}",
            "dataset": trained.dataset_hash,
            "policy": policy.hash,
            "features": policy.features,
            "parameters": canonical_json(trained.params),
        },
    }


def _summary(policy: Policy, found: Evaluation) -> str:
    whole = found.metrics[(found.metrics["segment"] == "") & (found.metrics["slice"] == "")]
    figure = whole[whole["metric"] == policy.gate.metric].set_index("who")["value"].to_dict()
    mine, rule = figure["candidate"], figure["incumbent"]
    change = (rule - mine) / rule if rule else float("nan")
    words = f"{policy.gate.metric} {mine:.4g} against {rule:.4g} of the rule {policy.incumbent}"
    return f"{words}: {abs(change):.1%} {'less' if change >= 0 else 'more'} loss, on {found.dataset['rows']} rows."


def _limits(policy: Policy, found: Evaluation) -> list[str]:
    """What a reader has to know before relying on it: what was not scored, and segments that do worse than the rule."""
    lines = [f"{found.dataset['not_comparable']} rows could not be scored because model or rule had no history."]
    if "champion_unusable" in found.dataset:
        lines.append(f"Not compared with the champion: {found.dataset['champion_unusable']}.")
    table = found.metrics[(found.metrics["metric"] == policy.gate.metric) & (found.metrics["segment"] != "")]
    wide = table.pivot_table(index="segment", columns="who", values="value", aggfunc="first")
    if {"candidate", "incumbent"} <= set(wide.columns):
        worse = wide[wide["candidate"] > wide["incumbent"]]
        lines += [f"Worse than the rule where {name}." for name in worse.index]
    if policy.kind == "forecast":
        lines.append("Demand on days that were closed or out of stock was neither learnt from nor scored.")
    else:
        lines.append("Shipments without an outcome (cancelled, diverted) were neither learnt from nor scored.")
    return lines


def _tables(found: Evaluation) -> list[tuple[str, pd.DataFrame]]:
    """Wide tables for people: all rows, by third of the horizon, by segment."""
    titles = {"all": "All scored rows", "slice": "By days ahead", "segment": "By segment"}
    frame = found.metrics
    kinds = {
        "all": frame[(frame["segment"] == "") & (frame["slice"] == "")],
        "slice": frame[frame["slice"] != ""],
        "segment": frame[frame["segment"] != ""],
    }
    tables = []
    for name, part in kinds.items():
        if part.empty:
            continue
        keys = ["who"] if name == "all" else [name, "who"]
        wide = part.pivot_table(index=keys, columns="metric", values="value", sort=True).reset_index()
        rows = part.groupby(keys)["rows"].first().reset_index(drop=True).astype(float)
        wide["rows"] = rows
        tables.append((titles[name], wide))
    return tables
