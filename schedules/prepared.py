"""Statements that the server keeps prepared: the two that every run sends. Planning them takes longer than the rest."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any, Final, cast

import psycopg
from django.db import connection
from django.db.backends.utils import CursorWrapper

# What one connection has sent so often, its server is to keep (psycopg's documentation, "Prepared statements").
PREPARED_AFTER: Final = 2
_JSON_COLUMNS: Final = {"config", "granted_caps", "secret_envelope", "payload"}


def fetch_one(statement: str, values: dict[str, Any]) -> dict[str, Any] | None:
    """The first row of a statement's result by column name, or None. Raises Django's database errors.

    A parameter whose type the statement does not tell needs a cast: the server binds it, and not psycopg.
    """
    with _preparing_cursor() as cursor:
        cursor.execute(statement, values)
        row = cursor.fetchone()
        if row is None:
            return None
        columns = [column.name for column in cursor.description]
        result = dict(zip(columns, row, strict=True))
    # Django turns off psycopg's own decoding of jsonb.
    for name in _JSON_COLUMNS & result.keys():
        if isinstance(result[name], str):
            result[name] = json.loads(result[name])
    return result


@contextlib.contextmanager
def _preparing_cursor() -> Iterator[CursorWrapper]:
    connection.ensure_connection()
    raw = connection.connection
    # Django turns preparing off for a connection, and its own cursors bind on the client's side, which prevents it.
    raw.prepare_threshold = PREPARED_AFTER
    make = connection.make_debug_cursor if connection.queries_logged else connection.make_cursor
    try:
        with make(cast("CursorWrapper", psycopg.Cursor(raw))) as cursor:
            yield cursor
    finally:
        raw.prepare_threshold = None
