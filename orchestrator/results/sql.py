"""SQL about a results table."""

from __future__ import annotations

import pyarrow as pa

from orchestrator.sweep.problems import Problem, SweepError

#: A query reads the tables that it is given: no file, no network, no variable of this program, and it writes nothing.
_CLOSED: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "lock_configuration": "true",
}


def query(table: pa.Table, sql: str) -> pa.Table:
    """Return what DuckDB answers to one statement of SQL about the table `results`, which is all that it can read.

    Raises:
        SweepError: it is no SQL, several statements, speaks of what is not there, or would read or write a file.
    """
    import duckdb

    with duckdb.connect(config=_CLOSED) as connection:
        # `register` would import pandas, only to see that this is none of its tables.
        connection.from_arrow(table).create_view("results")
        try:
            if (count := len(connection.extract_statements(sql))) > 1:
                message = (
                    f"these are {count} statements, and only one has an answer: ask them one by one, or as one, WITH "
                    "name AS (SELECT …) SELECT … or SELECT … UNION ALL SELECT …"
                )
                raise SweepError([Problem("--sql", "", message)])
            # Some mistakes show only where rows are made.
            answer = connection.sql(sql)
            found: pa.Table | None = None if answer is None else answer.to_arrow_table()
        except duckdb.PermissionException as error:
            message = (
                f"{error}; a query reads the table `results` and nothing else: --output FILE writes the answer, and "
                "for more, open results.parquet in DuckDB itself"
            )
            raise SweepError([Problem("--sql", "", message)]) from error
        except duckdb.Error as error:
            raise SweepError([Problem("--sql", "", str(error))]) from error
    if found is None:
        raise SweepError([Problem("--sql", "", "asks for no rows; begin with `select`")])
    return found
