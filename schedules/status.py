"""How the rows and their mirrors stand to each other right now, for operators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from schedules import calendars, temporal_bridge
from schedules.errors import SchedulingError
from schedules.models import ComparisonRecord


@dataclass(frozen=True, slots=True)
class SyncStatus:
    """Mirrors that are not yet what their rows want: how many, since when the oldest, how many cannot be; and more.

    ``oldest_seconds`` is 0 where nothing waits. The comparison is the last one, None before the first.
    """

    schedules: int
    pending: int
    failed: int
    removals: int
    oldest_seconds: float
    held: int
    comparison: ComparisonRecord | None


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether requests can be answered, and what is away. Temporal alone keeps nobody from being answered."""

    checks: Mapping[str, str]

    @property
    def is_ready(self) -> bool:
        """Whether the database is there and as the code wants it."""
        return self.checks["database"] == "ok" and self.checks["migrations"] == "ok"


def read_sync_status() -> SyncStatus:
    """Count it, in two statements."""
    with connection.cursor() as cursor:
        cursor.execute(_COUNT, {"rules": calendars.RULES})
        row: dict[str, Any] = dict(zip([column[0] for column in cursor.description], cursor.fetchone(), strict=True))
    return SyncStatus(**row, comparison=ComparisonRecord.objects.filter(id=1).first())


def check_readiness() -> Readiness:
    """Ask the database and Temporal; takes two seconds at the most for the latter."""
    checks = {"database": "ok", "migrations": "ok", "temporal": "ok"}
    try:
        connection.ensure_connection()
        executor = MigrationExecutor(connection)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            checks["migrations"] = "not all applied"
    except Exception as error:  # noqa: BLE001 - whatever it is, it is not ready
        checks["database"], checks["migrations"] = f"does not answer ({type(error).__name__})", "unknown"
    try:
        temporal_bridge.check_health()
    except SchedulingError as error:
        checks["temporal"] = error.message
    return Readiness(checks)


def age_seconds(moment: datetime | None, *, now: datetime) -> float | None:
    """How long ago it was."""
    return None if moment is None else (now - moment).total_seconds()


_COUNT = """
SELECT (SELECT count(*) FROM schedules_schedule) AS schedules,
       count(*) FILTER (WHERE NOT is_removal AND sync_error = '') AS pending,
       count(*) FILTER (WHERE NOT is_removal AND sync_error <> '') AS failed,
       count(*) FILTER (WHERE is_removal) AS removals,
       COALESCE(EXTRACT(epoch FROM clock_timestamp() - min(since)), 0)::float AS oldest_seconds,
       (SELECT count(*) FROM schedules_schedule WHERE held_since IS NOT NULL) AS held
FROM (
    SELECT changed_at AS since, sync_error, false AS is_removal FROM schedules_schedule
    WHERE synced_generation <> generation OR calendar_rules <> %(rules)s
    UNION ALL
    SELECT deleted_at, '', true FROM schedules_mirrorremoval
) AS unsynced
"""
