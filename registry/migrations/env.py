"""What Alembic runs for `registry.migrate`: over the connection it is handed, inside that connection's transaction."""

from alembic import context

from registry.migrate import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
context.run_migrations()
