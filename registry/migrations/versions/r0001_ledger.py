"""The ledger as 0.1.0 made it; adopts the table of 0.1.0, which was made without migrations."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_POSTGRES = """
    CREATE OR REPLACE FUNCTION seatrial_append_only() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'the ledger is append-only' USING ERRCODE = 'integrity_constraint_violation'; END $$;
    DROP TRIGGER IF EXISTS seatrial_ledger_no_change ON seatrial_ledger;
    CREATE TRIGGER seatrial_ledger_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON seatrial_ledger
    FOR EACH STATEMENT EXECUTE FUNCTION seatrial_append_only()
"""


def upgrade() -> None:
    """The table, and triggers that refuse to change or delete a row."""
    text = ("kind", "version", "at", "actor", "reason", "request_id", "payload", "previous", "hash")
    op.create_table(
        "seatrial_ledger",
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("revision", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("format", sa.Integer, nullable=False),
        *[sa.Column(name, sa.Text, nullable=False) for name in text],
        sa.UniqueConstraint("model", "request_id"),
        if_not_exists=True,
    )
    if op.get_bind().dialect.name == "postgresql":
        for statement in _POSTGRES.split(";\n"):
            op.execute(statement)
        return
    for verb in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER IF NOT EXISTS seatrial_ledger_no_{verb.lower()} BEFORE {verb} ON seatrial_ledger "
            "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
        )
