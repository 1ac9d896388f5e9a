"""Sliding-window rate limits, held in the database so that they are exact across processes and restarts."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from django.db import connection, transaction

from schedules.errors import RateLimited

WINDOW = timedelta(minutes=1)


def count_call(*, tenant_id: UUID, subject: str, limit: int) -> None:
    """Count one call of ``subject`` or raise RateLimited if ``limit`` calls lie within the last minute.

    ``data['retry_after_seconds']`` is the whole number of seconds until the oldest of them leaves the window. A
    refused call does not count. Must run inside a transaction: callers of one subject pass one at a time, and a
    call whose transaction is rolled back was never made. The clock is the database's.
    """
    if not transaction.get_connection().in_atomic_block:
        raise transaction.TransactionManagementError("count_call needs the transaction of the call that it counts")
    with connection.cursor() as cursor:
        # Without the lock two callers would both count limit - 1 entries and both pass.
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"rate:{tenant_id}:{subject}"])
        values: dict[str, Any] = {"tenant_id": tenant_id, "subject": subject, "limit": limit, "window": WINDOW}
        cursor.execute(_COUNT, values)
        counted, now, oldest = cursor.fetchone()
    if not counted:
        raise RateLimited(
            f"At most {limit} calls a minute, try again later",
            data={"retry_after_seconds": max(1, math.ceil((oldest + WINDOW - now).total_seconds()))},
        )


# The wall clock and not the transaction's start: waiting for the lock must not shift the window. Of the calls in the
# window only as many are looked at as the limit allows; where there are so many, the oldest of them must leave first.
_COUNT: Final = """
WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS now), gone AS (
    DELETE FROM schedules_ratewindowentry entry USING clock
    WHERE entry.tenant_id = %(tenant_id)s AND entry.subject = %(subject)s AND entry.at <= clock.now - %(window)s
), kept AS (
    SELECT entry.at FROM schedules_ratewindowentry entry, clock
    WHERE entry.tenant_id = %(tenant_id)s AND entry.subject = %(subject)s AND entry.at > clock.now - %(window)s
    ORDER BY entry.at DESC LIMIT %(limit)s
), added AS (
    INSERT INTO schedules_ratewindowentry (tenant_id, subject, at)
    SELECT %(tenant_id)s, %(subject)s, clock.now FROM clock
    WHERE (SELECT count(*) FROM kept) < %(limit)s
    RETURNING at
)
SELECT EXISTS (SELECT 1 FROM added), clock.now, (SELECT min(at) FROM kept) FROM clock
"""
