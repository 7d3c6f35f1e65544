"""The tables of the registry's database, as the newest migration leaves them."""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, MetaData, Table, Text, UniqueConstraint

METADATA = MetaData()

LEDGER = Table(
    "seatrial_ledger",
    METADATA,
    Column("model", Text, primary_key=True),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("format", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("at", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("payload", Text, nullable=False),
    Column("previous", Text, nullable=False),
    Column("hash", Text, nullable=False),
    UniqueConstraint("model", "request_id"),
)

# An event stands here in the same transaction as its ledger row; `event` is canonical JSON.
OUTBOX = Table(
    "seatrial_outbox",
    METADATA,
    Column("sequence", Integer, primary_key=True, autoincrement=True),
    Column("event_id", Text, nullable=False, unique=True),
    Column("model", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("type", Text, nullable=False),
    Column("event", Text, nullable=False),
    Column("at", Text, nullable=False),
    sqlite_autoincrement=True,
)

# How far an event got with one target: `state` is pending, delivered or dead; times are ISO 8601 in UTC.
DELIVERY = Table(
    "seatrial_delivery",
    METADATA,
    Column("event_id", Text, primary_key=True),
    Column("target", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_at", Text, nullable=False),
    Column("last_error", Text, nullable=False),
    Column("changed_at", Text, nullable=False),
    Index("seatrial_delivery_due", "state", "next_at"),
)
