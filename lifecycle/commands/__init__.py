"""The commands, one module a group; each imports what it needs when it runs."""

from __future__ import annotations

import typer

from lifecycle.commands import data, demo, model, registry, schema, serve, watch

app = typer.Typer(
    name="seatrial",
    help="The life of supply-chain models: point-in-time features, trials, rollouts, decisions, drift.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("ingest")(data.ingest)
app.add_typer(data.features_app, name="features")
app.command("train")(model.train)
app.command("tune")(model.tune)
app.command("backtest")(model.backtest)
app.add_typer(registry.rollout_app, name="rollout")
app.add_typer(registry.ledger_app, name="ledger")
app.command("reconcile")(registry.reconcile)
app.command("serve")(serve.serve)
app.command("shadow")(serve.shadow)
app.command("replay")(serve.replay)
app.command("monitor")(watch.monitor)
app.command("demo")(demo.demo)
app.command("schema")(schema.schema)
