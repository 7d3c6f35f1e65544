"""Tables of the forecast benchmark in Markdown, and which aims are met."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.forecast_rivals import MLFORECAST, NAIVE, OURS
from benchmarks.forecast_scores import MANY_ZEROS
from benchmarks.measure import machine, write_section

DOCS = Path(__file__).parents[1] / "docs"
Result = Mapping[str, Any]
MEASURES = {
    "rmsse": "RMSSE, pooled, of the mean",
    "rmsse_by_series": "RMSSE by series, of the mean",
    "rmsse_point": "RMSSE by series, of the point forecast",
    "wql": "weighted quantile loss",
}
NEAR = 1.01
UNDER_NAIVE = 0.8
MOST_BIAS = 0.05
COVERAGE_GAP = 0.03
MOST_CPU_S = 60.0


def best(result: Result, metric: str, names: Sequence[str]) -> str:
    """Who has the lowest figure."""
    return min(names, key=lambda name: result["table"][name][metric])


def rivals_of(result: Result) -> list[str]:
    """All but ours."""
    return [name for name in result["table"] if name != OURS]


def accuracy_text(results: Sequence[Result]) -> str:
    """Aims and summary, then every set's tables."""
    parts = [summary_text(results)]
    if any(OURS in result["table"] for result in results):
        parts.append("### Aims\n\n" + _aims_table(aims(results)))
    parts += [_set_text(result) for result in results]
    return "\n\n".join(parts)


def summary_text(results: Sequence[Result]) -> str:
    """One line a set: RMSSE / weighted quantile loss of ours and of each kind of rival."""
    lines = [
        "RMSSE / weighted quantile loss, lower is better. The best single statistical model is named by hindsight.",
        "",
        "| set | rows | zeros | SeasonalNaive | best statistical | mlforecast LightGBM | ours | ours / best rival |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        table = result["table"]
        pair = [best(result, metric, result["statistical"]) for metric in ("rmsse", "wql")]
        statistical = " / ".join(f"{table[n][m]:.3f}" for n, m in zip(pair, ("rmsse", "wql"), strict=True))
        cells = [
            result["set"],
            f"{result['rows']:,}",
            f"{result['zero_share']:.0%}",
            _both(table.get(NAIVE)),
            f"{statistical} ({pair[0] if pair[0] == pair[1] else ' / '.join(pair)})",
            _both(table.get(MLFORECAST)),
            _both(table.get(OURS)),
            _ratios(result),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _both(line: Mapping[str, Any] | None) -> str:
    return "-" if line is None else f"{line['rmsse']:.3f} / {line['wql']:.3f}"


def _ratios(result: Result) -> str:
    if OURS not in result["table"]:
        return "-"
    return " / ".join(f"{_against(result, metric, rivals_of(result)):.3f}" for metric in ("rmsse", "wql"))


def _against(result: Result, metric: str, names: Sequence[str]) -> float:
    """Ours over the best of the names."""
    table = result["table"]
    return float(table[OURS][metric] / table[best(result, metric, names)][metric])


def aims(results: Sequence[Result], cpu_s: float | None = None) -> list[tuple[str, str, str, bool | None]]:
    """(aim, set, figure, met); met is None where the aim does not apply."""
    found: list[tuple[str, str, str, bool | None]] = []
    for result in results:
        name, table = result["set"], result["table"]
        if OURS not in table:
            continue
        line = table[OURS]
        for metric, words in MEASURES.items():
            ratio = _against(result, metric, rivals_of(result))
            found.append((f"first or within 1% of first by {words}", name, f"{ratio:.3f}", ratio <= NEAR))
            ratio = _against(result, metric, result["statistical"])
            found.append((f"at most 1% over the best statistical by {words}", name, f"{ratio:.3f}", ratio <= NEAR))
            ratio = _against(result, metric, [NAIVE])
            found.append((f"20% under SeasonalNaive by {words}", name, f"{ratio:.3f}", ratio <= UNDER_NAIVE))
        found.append(("bias of the mean at most 5%", name, f"{line['bias']:+.1%}", abs(line["bias"]) <= MOST_BIAS))
        found.append(_coverage_aim(result))
        worse = [part for part in result["segments"] if part["rmsse"][OURS] > part["rmsse"][NAIVE]]
        said = f"{len(worse)} of {len(result['segments'])}"
        found.append(("no segment of 50 series worse than SeasonalNaive", name, said, not worse))
    if cpu_s is not None:
        found.append(("1,000 series x 800 days under 60 CPU s", "-", f"{cpu_s:.1f} s", cpu_s < MOST_CPU_S))
    return found


def _coverage_aim(result: Result) -> tuple[str, str, str, bool | None]:
    aim = "80% coverage within 3 points, continuous demand"
    if not result["continuous_rows"]:
        return aim, result["set"], "no such series", None
    share = result["table"][OURS]["coverage_80_continuous"]
    figure = f"{share:.1%} of {result['continuous_rows']:,} rows"
    return aim, result["set"], figure, abs(share - 0.8) <= COVERAGE_GAP


def _aims_table(lines: Sequence[tuple[str, str, str, bool | None]]) -> str:
    """One line an aim, one column a set; a figure in bold misses its aim."""
    sets = list(dict.fromkeys(name for _, name, _, _ in lines))
    cells = {(aim, name): _cell(figure, met) for aim, name, figure, met in lines}
    rows = [f"| aim (ours / rival where a ratio) | {' | '.join(sets)} |", "|---" * (len(sets) + 1) + "|"]
    named = dict.fromkeys(aim for aim, _, _, _ in lines)
    rows += [f"| {aim} | {' | '.join(cells.get((aim, name), '') for name in sets)} |" for aim in named]
    counted = [met for _, _, _, met in lines if met is not None]
    return "\n".join([*rows, "", f"Met: {sum(counted)} of {len(counted)}."])


def _cell(figure: str, met: bool | None) -> str:
    return figure if met is None else f"{figure} met" if met else f"**{figure} not met**"


def _set_text(result: Result) -> str:
    left = "; ".join(f"{count:,} {why}" for why, count in result["left_out"].items() if count) or "none"
    no_goal = " (no goal here)" if result["zero_share"] > MANY_ZEROS else ""
    said = (
        f"{result['about']} {result['series']:,} series, {result['horizon']} {result['frequency']}s ahead from "
        f"{', '.join(result['origins'])}; {result['rows']:,} rows, {result['zero_share']:.0%} zeros; known rows left "
        f"out: {left}."
    )
    head = [
        "RMSSE",
        "by series",
        "of the point",
        "WQL",
        f"WAPE{no_goal}",
        "bias",
        "80% covers by third",
        "90% covers by third",
        "series / CPU s",
    ]
    columns = ["contender", *head, "naive stood in"]
    lines = [f"### {result['set']}", "", said[0].upper() + said[1:], "", f"| {' | '.join(columns)} |"]
    lines.append("|---" * len(columns) + "|")
    for name, line in sorted(result["table"].items(), key=lambda item: item[1]["rmsse"]):
        cells = [
            f"**{name}**" if name == OURS else name,
            f"{line['rmsse']:.3f}",
            f"{line['rmsse_by_series']:.3f}",
            f"{line['rmsse_point']:.3f}",
            f"{line['wql']:.3f}",
            f"{line['wape']:.3f}",
            f"{line['bias']:+.1%}",
            _thirds(line["coverage_80_thirds"]),
            _thirds(line["coverage_90_thirds"]),
            f"{line['series_per_cpu_s']:,.0f}",
            f"{line['stood_in']:.1%}" if line["stood_in"] else "-",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, *_segment_lines(result)])


def _thirds(shares: Sequence[float]) -> str:
    return " / ".join(f"{share:.1%}" for share in shares)


def _segment_lines(result: Result) -> list[str]:
    parts = result["segments"]
    if not parts:
        return []
    names = list(parts[0]["rmsse"])
    first = names[0]
    head = [*(f"{name} RMSSE" for name in names), *([f"{first} / {NAIVE}"] if first != NAIVE else [])]
    lines = ["", f"| segment | series | rows | {' | '.join(head)} |", "|---" * (3 + len(head)) + "|"]
    for part in parts:
        figures = [f"{part['rmsse'][name]:.3f}" for name in names]
        if first != NAIVE:
            figures.append(f"{part['rmsse'][first] / part['rmsse'][NAIVE]:.3f}")
        segment = f"{part['volume']} {part['kind']}"
        lines.append(f"| {segment} | {part['series']} | {part['rows']:,} | {' | '.join(figures)} |")
    return lines


def throughput_text(found: Mapping[str, Any]) -> str:
    """What speed and memory were measured."""
    lines = ["| what | figure |", "|---|---|"]
    lines += [f"| {words} | {figure} |" for words, figure in found["lines"]]
    return "\n".join([*lines, "", found["machine"]])


def write_accuracy(results: Sequence[Result]) -> None:
    """The accuracy section of docs/forecast.md, and the summary of docs/benchmarks.md where it has the markers."""
    write_section(DOCS / "forecast.md", "forecast_accuracy", accuracy_text(results))
    summary = (
        f"## Demand forecasts\n\n{summary_text(results)}\n\n"
        "Every contender, coverage, segments and aims: [forecast](forecast.md). "
        f"`python -m benchmarks.forecast`; {machine()}."
    )
    try:
        write_section(DOCS / "benchmarks.md", "forecast", summary)
    except ValueError as error:
        sys.stderr.write(f"{error}: the summary was not written\n")


def write_throughput(found: Mapping[str, Any]) -> None:
    """The throughput section of docs/forecast.md."""
    write_section(DOCS / "forecast.md", "forecast_throughput", throughput_text(found))
