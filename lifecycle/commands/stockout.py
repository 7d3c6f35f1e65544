"""What to order: `seatrial stockout`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lifecycle.commands.options import Json

if TYPE_CHECKING:
    from lifecycle.stock_files import Rows
    from models.order_terms import Terms
    from models.stockout import Advice

_SHOWN = 10


def stockout(
    items: Annotated[
        Path, typer.Argument(help="CSV or Parquet, one row an item: key (or sku, location), on_hand, lead_time, ...")
    ],
    forecast: Annotated[
        Path | None,
        typer.Option(help="key, step, mean, 0.1, 0.5, ...; the decision log's newest if not given."),
    ] = None,
    orders: Annotated[Path | None, typer.Option(help="Open orders: key, step of arrival, units.")] = None,
    lead_times: Annotated[Path | None, typer.Option(help="Past deliveries: key, lead_time in periods.")] = None,
    service_level: Annotated[float | None, typer.Option(help="For items without one and without costs.")] = None,
    review: Annotated[int, typer.Option(help="Periods until the next chance to order.", min=1)] = 1,
    correlation: Annotated[float, typer.Option(help="Of neighbouring steps: 0 independent, 1 together.")] = 0.0,
    season: Annotated[int | None, typer.Option(help="Let the last N steps repeat where the forecast is short.")] = None,
    lost: Annotated[bool, typer.Option("--lost", help="Unmet demand is lost, not owed.")] = False,
    model: Annotated[str, typer.Option(help="Whose decisions are read without --forecast.")] = "demand",
    out: Annotated[Path | None, typer.Option(help="Write the recommendations here: .csv, .json or .parquet.")] = None,
    json_output: Json = False,
) -> None:
    """Say how likely each item runs out before a later order could help, and how much to order now.

    Items may carry service_level, or shortage_cost and holding_cost (per unit and protection interval), order_minimum,
    order_multiple and order_maximum. Nothing is written but --out, and that whole or not at all.
    """
    from lifecycle.stock_files import forecast_of, keyed, lead_times_of, on_order_of, once
    from lifecycle.terminal import emit
    from models.order_terms import numbers
    from models.stockout import Stock, advise

    _check_name(out)
    rows = keyed(items)
    keys = once(rows)
    source = keyed(forecast) if forecast is not None else _decided(model)
    coming = None if orders is None else on_order_of(keyed(orders), keys)
    on_hand = numbers(f"{rows.name}: on_hand", rows.numbers("on_hand"), keys, low=float("-inf"))
    advice = advise(
        forecast_of(source, keys),
        Stock(on_hand, coming),
        lead_times_of(rows, keys, None if lead_times is None else keyed(lead_times)),
        _terms(rows, service_level, review, lost),
        correlation=correlation,
        season=season,
        keys=keys,
    )
    if out is not None:
        _write(out, advice)
    emit(_summary(advice, source, out, json_output=json_output), json_output=json_output, title="stock-out rule")


def _decided(model: str) -> Rows:
    from drift.log_source import LogSource
    from lifecycle.stock_files import forecast_rows
    from lifecycle.workspace import Workspace

    ws = Workspace()
    return forecast_rows(LogSource(ws.settings.decisions, ws.policy(model).model).records())


def _terms(rows: Rows, service_level: float | None, review: int, lost: bool) -> Terms:
    from contracts.errors import InputInvalid
    from models.order_terms import Terms

    own = rows.optional("service_level", service_level)
    shortage, holding = rows.optional("shortage_cost", None), rows.optional("holding_cost", None)
    if own is None and (shortage is None or holding is None):
        wanted = "a column service_level, or shortage_cost and holding_cost, or --service-level"
        raise InputInvalid(rows.name, wanted, ", ".join(map(str, rows.frame.columns)))
    if "service_level" not in rows.frame.columns and shortage is not None and holding is not None:
        own = None
    return Terms(
        service_level=own,
        shortage_cost=shortage if own is None else None,
        holding_cost=holding if own is None else None,
        minimum=rows.optional("order_minimum", 0.0),
        multiple=rows.optional("order_multiple", 1.0),
        maximum=rows.optional("order_maximum", float("inf")),
        review=review,
        unmet="lost" if lost else "backordered",
    )


def _check_name(out: Path | None) -> None:
    from contracts.errors import InputInvalid

    if out is not None and out.suffix not in (".csv", ".json", ".parquet"):
        raise InputInvalid(str(out), "a name that ends in .csv, .json or .parquet", out.suffix or "no ending")


def _write(out: Path, advice: Advice) -> None:
    import io
    import json

    import pandas as pd

    from registry.durable import replace_file

    if out.suffix == ".json":
        replace_file(out, json.dumps({"about": dict(advice.about), "items": advice.rows()}, indent=2).encode())
        return
    flat = [{**{k: v for k, v in row.items() if k != "inputs"}, **row["inputs"]} for row in advice.rows()]
    frame, content = pd.DataFrame(flat), io.BytesIO()
    if out.suffix == ".csv":
        frame.to_csv(content, index=False)
    else:
        frame.to_parquet(content, index=False)
    replace_file(out, content.getvalue())


def _summary(advice: Advice, source: Rows, out: Path | None, *, json_output: bool) -> dict[str, Any]:
    result: dict[str, Any] = {
        "items": len(advice.keys),
        "to_order": int((advice.order > 0).sum()),
        "units": float(advice.order.sum()),
        "expected_short": float(advice.short.sum()),
        "expected_short_after_order": float(advice.short_after.sum()),
        "forecast": source.name,
        **{name: value for name, value in advice.about.items() if value is not None},
    }
    if "as_of" in source.frame.columns:
        used = source.frame["as_of"][source.frame["key"].isin(set(advice.keys))]
        result["forecast_as_of"] = {"oldest": str(used.min()), "newest": str(used.max())}
    if out is not None:
        result["written"] = str(out)
    if json_output:
        return {**result, "recommendations": advice.rows()}
    risky = sorted(range(len(advice.keys)), key=lambda i: (-advice.probability[i], advice.keys[i]))[:_SHOWN]
    return {**result, "riskiest": {advice.keys[i]: advice.reasons[i] for i in risky}}
