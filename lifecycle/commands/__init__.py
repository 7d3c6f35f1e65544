"""The commands, one module a group; each imports what it needs when it runs."""

from __future__ import annotations

import typer

from lifecycle.commands import (
    access,
    alarm,
    audit,
    bench,
    data,
    demo,
    environment,
    forecast,
    freshness,
    health,
    ledger,
    model,
    outbox,
    policy,
    quarantine,
    rollout,
    schema,
    series,
    serve,
    stockout,
    versions,
    watch,
)

app = typer.Typer(
    name="seatrial",
    help="The life of supply-chain models: point-in-time features, trials, rollouts, decisions, drift.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("ingest")(data.ingest)
data.features_app.command("audit")(audit.audit)
data.features_app.command("skew")(audit.skew)
data.features_app.command("freshness")(freshness.freshness)
data.features_app.command("bench")(bench.bench)
data.features_app.command("series")(series.series)
app.add_typer(data.features_app, name="features")
app.add_typer(quarantine.quarantine_app, name="quarantine")
app.command("train")(model.train)
app.command("tune")(model.tune)
app.command("backtest")(model.backtest)
app.command("compare")(versions.compare)
app.command("card")(versions.card)
app.add_typer(rollout.rollout_app, name="rollout")
app.add_typer(ledger.ledger_app, name="ledger")
app.add_typer(access.access_app, name="access")
app.add_typer(environment.environment_app, name="environment")
app.add_typer(outbox.outbox_app, name="outbox")
app.add_typer(policy.policy_app, name="policy")
app.command("doctor")(health.doctor)
app.command("reconcile")(health.reconcile)
app.command("serve")(serve.serve)
app.command("shadow")(serve.shadow)
app.command("replay")(serve.replay)
app.add_typer(alarm.alarm_app, name="alarm")
app.command("monitor")(watch.monitor)
app.command("forecast")(forecast.forecast)
app.command("stockout")(stockout.stockout)
app.command("demo")(demo.demo)
app.command("schema")(schema.schema)
