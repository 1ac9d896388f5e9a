"""Sliding-window rate limits, held in the database so that they are exact across processes and restarts."""

from __future__ import annotations

import math
from datetime import timedelta
from uuid import UUID

from django.db import connection, transaction

from schedules.errors import RateLimited
from schedules.models import RateWindowEntry

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
        cursor.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))",
            [f"rate:{tenant_id}:{subject}"],
        )
        # The wall clock and not the transaction's start: waiting for the lock must not shift the window.
        cursor.execute("SELECT clock_timestamp()")
        (now,) = cursor.fetchone()
    entries = RateWindowEntry.objects.filter(tenant_id=tenant_id, subject=subject)
    entries.filter(at__lte=now - WINDOW).delete()
    times = list(entries.order_by("at").values_list("at", flat=True))
    if len(times) >= limit:
        free_at = times[-limit] + WINDOW
        raise RateLimited(
            f"At most {limit} calls a minute, try again later",
            data={"retry_after_seconds": max(1, math.ceil((free_at - now).total_seconds()))},
        )
    RateWindowEntry.objects.create(tenant_id=tenant_id, subject=subject, at=now)
