"""A model card as one HTML page that needs nothing else, made from the plain files of a model's folder."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment

from contracts.errors import ArtifactRefused

TITLES = {
    "fan": "Best, typical and worst series, from the newest cutoff",
    "horizon": "Error and coverage by step",
    "reliability": "Said and seen, by segment",
    "importance": "What the model looks at",
    "contribution": "What moves the answer",
}
# In the order in which a reader asks: how good, where, for whom, why.
FIGURES = ("horizon", "fan", "reliability", "calibration", "importance", "contribution")
METRIC_WORDS = {
    "rmsse": "root mean squared error in units of the series' own day-to-day changes; lower is better",
    "wql": "weighted quantile loss over all quantiles, as a share of demand; lower is better",
    "wape": "sum of absolute errors as a share of demand; lower is better, no goal where most days are zero",
    "bias": "sum of forecast minus actual as a share of demand; above 0 is over-forecast",
    "coverage": "share of demand inside the widest interval",
    "brier": "mean squared distance of probability and outcome; lower is better",
    "log_loss": "mean minus log of the probability given to what happened; lower is better",
    "auc": "chance that a case with the outcome was given more than one without; 0.5 is a coin",
    "ece": "mean distance of said and seen shares; 0 is calibrated",
}
TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Model card: {{ card.model }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1d2733; }
table { border-collapse: collapse; margin: .6rem 0 1.4rem; display: block; overflow-x: auto; }
th, td { padding: .2rem .9rem .2rem 0; text-align: left; vertical-align: top; }
thead th { border-bottom: 1px solid #bbb; } tbody th { font-weight: 600; white-space: nowrap; }
.n { text-align: right; font-variant-numeric: tabular-nums; } .small { color: #55606b; font-size: .9em; }
img { max-width: 100%; } code { font-size: .85em; word-break: break-all; } .lead { font-size: 1.15em; }
</style></head><body>
<h1>{{ card.model }}</h1>
<p class="lead">{{ card.summary }}</p>
<p>{{ card.purpose }}</p>
<table><tbody>
{% for name, value in about %}<tr><th scope="row">{{ name }}</th><td>{{ value }}</td></tr>
{% endfor %}</tbody></table>
<h2>Limits</h2><ul>{% for line in card.limits %}<li>{{ line }}</li>{% endfor %}</ul>
<h2>How it did</h2>
{% for title, head, rows in tables %}<h3>{{ title }}</h3>
<table><thead><tr>{% for name in head %}
<th{% if not loop.first and name != "who" %} class="n"{% endif %}>{{ name }}</th>
{% endfor %}</tr></thead><tbody>
{% for row in rows %}<tr>{% for cell, number in row %}<td{% if number %} class="n"{% endif %}>{{ cell }}</td>
{% endfor %}</tr>{% endfor %}</tbody></table>
{% endfor %}
<p class="small">{% for name, words in metrics %}<b>{{ name }}</b>: {{ words }}. {% endfor %}</p>
{% for title, data in figures %}<p><img alt="{{ title }}" src="data:image/png;base64,{{ data }}"></p>
{% endfor %}
{% if card.data %}<h2>Data</h2><table><tbody>{% for name, value in card.data.items() %}
<tr><th scope="row">{{ name }}</th><td>{{ value }}</td></tr>{% endfor %}</tbody></table>{% endif %}
{% if card.sources %}<table><thead><tr><th>source</th><th>events</th><th class="n">rows</th><th>newest known at</th>
<th>state when trained</th></tr></thead><tbody>{% for s in card.sources %}
<tr><td>{{ s.source or "none" }}</td><td>{{ s.kind }}</td><td class="n">{{ s.rows }}</td>
<td>{{ s.newest_known or "never" }}</td>
<td>{{ s.state }}</td></tr>{% endfor %}</tbody></table>{% endif %}
{% if card.gates %}<h2>What the gate asks</h2><table><tbody>{% for line in card.gates %}
<tr><th scope="row">{{ line.name }}</th><td>{{ line.asks }}</td></tr>{% endfor %}</tbody></table>
<h2>After the gate</h2><ul>{% for line in card.after_the_gate %}<li>{{ line }}</li>{% endfor %}</ul>{% endif %}
<h2>Provenance</h2><table><tbody>{% for name, value in card.provenance.items() %}
<tr><th scope="row">{{ name }}</th><td><code>{{ value }}</code></td></tr>{% endfor %}</tbody></table>
</body></html>
"""


def card_page(folder: Path) -> str:
    """The page of the model whose card.json, evaluation.json and figures lie in `folder`.

    Raises:
        ArtifactRefused: there is no readable card.
    """
    try:
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        found = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactRefused(folder.name, f"its card cannot be read: {error}") from None
    frame = pd.DataFrame(found["metrics"])
    figures = [
        (TITLES.get(name, name), base64.b64encode(path.read_bytes()).decode("ascii"))
        for name in FIGURES
        if (path := folder / f"figure_{name}.png").is_file()
    ]
    seen = [(name, METRIC_WORDS[name]) for name in METRIC_WORDS if name in set(frame["metric"])]
    page = Environment(autoescape=True).from_string(TEMPLATE)
    return page.render(card=card, about=_about(card), tables=_tables(frame), metrics=seen, figures=figures)


def _about(card: dict[str, Any]) -> list[tuple[str, str]]:
    reached = f" ({', '.join(card['notify'])})" if card.get("notify") else ""
    lines = [
        ("Answers for it", f"{card['owner']}{reached}"),
        ("Business hypothesis", card.get("hypothesis", "")),
        ("Business metric", card["business_metric"]),
        ("Judged by segment", ", ".join(card.get("segments", []))),
    ]
    return [(name, value) for name, value in lines if value]


def _tables(frame: pd.DataFrame) -> list[tuple[str, list[str], list[list[tuple[str, bool]]]]]:
    """Wide tables for people: all rows, by third of the horizon, by segment; cells with whether they are numbers."""
    kinds = {
        "All scored rows": (frame[(frame["segment"] == "") & (frame["slice"] == "")], ["who"]),
        "By steps ahead": (frame[frame["slice"] != ""], ["slice", "who"]),
        "By segment": (frame[frame["segment"] != ""], ["segment", "who"]),
    }
    tables = []
    for title, (part, keys) in kinds.items():
        if part.empty:
            continue
        order = [name for name in METRIC_WORDS if name in set(part["metric"])]
        order += sorted(set(part["metric"]) - set(order))
        part = part.assign(place=part.groupby(keys[0], sort=False).ngroup() if len(keys) > 1 else 0)
        index = ["place", *keys]
        wide = part.pivot_table(index=index, columns="metric", values="value", aggfunc="first")[order]
        rows = part.groupby(index)["rows"].first()
        lines = [
            [*((str(word), False) for word in key[1:]), *((_number(v), True) for v in values), (f"{rows[key]:,}", True)]
            for key, values in zip(wide.index, wide.to_numpy(), strict=True)
        ]
        tables.append((title, [*keys, *order, "rows"], lines))
    return tables


def _number(value: float) -> str:
    return "" if value != value else f"{value:.4f}" if abs(value) < 10 else f"{value:.4g}"
