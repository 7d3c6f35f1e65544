"""A mapping's SQL, run by DuckDB over registered inputs only: no files, no network, no extensions, no settings."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from contracts.errors import InputInvalid

_CLOSED: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    # One thread: sums of floating-point numbers and row order come out the same every time, and so do batch hashes.
    "threads": "1",
}


class RowShaper:
    """A closed database with the named inputs as tables.

    Args:
        inputs: table name -> rows.
        source: what the rows come from, for messages.
    """

    def __init__(self, inputs: Mapping[str, pa.Table | ds.Dataset], source: str) -> None:
        self._source = source
        self._database = duckdb.connect(":memory:", config=_CLOSED)
        self._database.execute("SET python_enable_replacements = false; SET TimeZone = 'UTC'")
        for name, rows in inputs.items():
            self._database.register(name, rows)
        self._database.execute("SET lock_configuration = true")

    def __enter__(self) -> RowShaper:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def add(self, name: str, rows: pa.Table) -> None:
        """Another table for the SELECTs that follow."""
        self._database.register(name, rows)

    def select(self, sql: str, what: str) -> pa.Table:
        """Rows of one SELECT.

        Args:
            sql: one SELECT statement over the inputs.
            what: the mapping's key that it stands under, for messages.

        Raises:
            InputInvalid: it is not one SELECT, or DuckDB refuses it (unknown column, bad cast, access to a file),
                or an input turns out broken while it is read.
        """
        try:
            statements = self._database.extract_statements(sql)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise InputInvalid(f"{self._source}: {what}", "one SELECT", sql.strip()[:80])
            return self._database.sql(sql).to_arrow_table()
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            words = " ".join(line.strip() for line in str(error).splitlines()[:2])
            raise InputInvalid(f"{self._source}: {what}", "SQL that runs on the inputs", words) from None
