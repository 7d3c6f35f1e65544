"""Forecasts of a file's series, in one go: `seatrial forecast`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lifecycle.commands.options import Json

if TYPE_CHECKING:
    from models.hierarchy import Reconciled
    from models.panel import Panel, PanelForecast

Frequency = Literal["day", "week", "month"]
Missing = Literal["unknown", "zero"]
Method = Literal["mint_shrink", "wls_struct", "bottom_up"]


def forecast(
    file: Annotated[
        Path, typer.Argument(help="CSV or Parquet, a row a series and period; rows ahead lack a quantity.")
    ],
    frequency: Annotated[Frequency, typer.Option(help="Length of a period.")],
    horizon: Annotated[int, typer.Option(min=1, max=366, help="Periods ahead.")],
    out: Annotated[Path, typer.Option(help="Write the forecasts here: .csv or .parquet.")],
    key: Annotated[list[str] | None, typer.Option(help="Columns that make a series (default: key).")] = None,
    period: Annotated[str, typer.Option(help="Column with a day in the period.")] = "period",
    quantity: Annotated[str, typer.Option(help="Column with the units; empty is unknown.")] = "quantity",
    ahead: Annotated[list[str] | None, typer.Option(help="Numbers known in advance, like a promotion.")] = None,
    static: Annotated[list[str] | None, typer.Option(help="Attributes that do not change, like a category.")] = None,
    censored: Annotated[str | None, typer.Option(help="Column that is true when closed or out of stock.")] = None,
    missing: Annotated[Missing, typer.Option(help="What a period without a row was.")] = "unknown",
    until: Annotated[str | None, typer.Option(help="First day ahead; after the newest quantity if not given.")] = None,
    country: Annotated[str | None, typer.Option(help="ISO code whose holidays count, for days.")] = None,
    totals: Annotated[list[str] | None, typer.Option(help="Static columns whose totals are to add up.")] = None,
    method: Annotated[Method, typer.Option(help="How totals are made to add up (extra hier).")] = "bottom_up",
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes for statistical fits.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn at random.")] = 7,
    json_output: Json = False,
) -> None:
    """Forecast every series of a file: mean, point and quantiles for each step, and who answered for which series.

    The recipe is that of docs/forecast.md. Nothing is written but --out, and that whole or not at all.
    """
    from contracts.errors import InputInvalid
    from lifecycle.panel_files import flags, forecast_table, numbers, read_rows
    from lifecycle.terminal import emit, progress_bar
    from models.panel import panel_of
    from models.panel_forecast import forecast_panel

    if out.suffix not in (".csv", ".parquet"):
        raise InputInvalid(str(out), "a name that ends in .csv or .parquet", out.suffix or "no ending")
    known, fixed, keys = list(ahead or ()), list(static or ()), list(key or ["key"])
    fixed += [name for name in totals or () if name not in fixed]
    with progress_bar(json_output=json_output) as progress:
        progress("reading", 0.0)
        rows = read_rows(file, [*keys, period, quantity, *known, *fixed, *([censored] if censored else [])])
        rows = numbers(rows, [quantity, *known], file)
        panel = panel_of(
            rows if censored is None else flags(rows, censored, file),
            frequency=frequency,
            keys=keys,
            period=period,
            quantity=quantity,
            ahead=known,
            static=fixed,
            censored=censored,
            missing=missing,
            until=until,
        )
        progress("past origins, boosters, challengers", 0.1)
        made = forecast_panel(panel, horizon, country=country, seed=seed, workers=workers)
        progress("totals", 0.9)
        coherent = _totals(panel, made, totals, method)
        _write(out, forecast_table(panel, made, coherent))
    emit(_summary(panel, made, coherent, out), json_output=json_output, title="forecast")


def _totals(panel: Panel, made: PanelForecast, by: list[str] | None, method: Method) -> Reconciled | None:
    from models.hierarchy import reconcile

    return reconcile(panel, made, by, None, method) if by else None


def _write(out: Path, table: Any) -> None:
    import io

    from registry.durable import replace_file

    content = io.BytesIO()
    if out.suffix == ".csv":
        table.to_csv(content, index=False)
    else:
        table.to_parquet(content, index=False)
    replace_file(out, content.getvalue())


def _summary(panel: Panel, made: PanelForecast, coherent: Reconciled | None, out: Path) -> dict[str, Any]:
    import numpy as np

    horizon = made.mean.shape[1]
    dates = panel.dates(panel.periods, panel.periods + horizon)
    about = dict(made.about)
    result: dict[str, Any] = {
        "series": len(panel.keys),
        "first_period": str(dates[0]),
        "last_period": str(dates[-1]),
        "units_expected": float(np.nansum(made.mean)),
        "answered_by": dict(sorted(Counter(made.how).items())),
        "written": str(out),
    }
    if panel.censored is not None:
        result["masked_periods"] = int(panel.censored.sum())
    for name in ("fallback", "rows", "rounds", "level", "intervals"):
        if name in about:
            result[name] = about[name]
    if "blend" in about:
        result["challengers"] = about["blend"]["whole"]
    if coherent is not None:
        result["totals"] = coherent.hierarchy.groups
        result["totals_by"] = dict(coherent.about)
    return result
