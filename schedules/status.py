"""How the rows and their mirrors stand to each other right now, for operators."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import structlog
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from schedules import convergence, system_schedules, temporal_bridge
from schedules.errors import SchedulingError
from schedules.models import ComparisonRecord, PassRecord

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SyncStatus:
    """Mirrors that are not yet what their rows want: how many, since when the oldest, how many cannot be; and more.

    ``renewals`` show what their rows want and are to be written anew all the same, e.g. after new time zone data.
    ``oldest_seconds`` is 0 where nothing waits. The comparison is the last one, None before the first.
    """

    schedules: int
    renewals: int
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
        cursor.execute(_COUNT, {"rules": convergence.mirror_rules(), "notice": cast("Any", convergence.RENEWAL_NOTICE)})
        row: dict[str, Any] = dict(zip([column[0] for column in cursor.description], cursor.fetchone(), strict=True))
    return SyncStatus(**row, comparison=ComparisonRecord.objects.filter(id=1).first())


def check_readiness() -> Readiness:
    """Ask the database and Temporal; takes two seconds at the most for the latter."""
    checks = {"database": "ok", "migrations": "ok", "temporal": "ok"}
    try:
        connection.ensure_connection()
        _note_that_migrations_are_applied()
    except _NotMigratedError:
        checks["migrations"] = "not all applied"
    except Exception as error:  # noqa: BLE001 - whatever it is, it is not ready
        checks["database"], checks["migrations"] = f"does not answer ({type(error).__name__})", "unknown"
    try:
        if not temporal_bridge.has_namespace():
            checks["temporal"] = "the namespace does not exist"
    except SchedulingError as error:
        log.info("status.temporal_away", reason=error.message)
        checks["temporal"] = "does not answer"
    return Readiness(checks)


@dataclass(frozen=True, slots=True)
class Pass:
    """A regular pass: whether Temporal starts it ("ok", "missing", "paused", "unknown"), and when it last ended."""

    schedule: str
    finished_at: datetime | None


def read_passes(*, ask_temporal: bool = True) -> dict[str, Pass]:
    """The regular passes by name. Without ``ask_temporal`` nobody knows whether they are started."""
    ended = dict(PassRecord.objects.values_list("name", "finished_at"))
    try:
        troubles = system_schedules.find_troubles() if ask_temporal else None
    except SchedulingError:
        troubles = None
    return {
        one.name: Pass("unknown" if troubles is None else str(troubles.get(one.name, "ok")), ended.get(one.name))
        for one in system_schedules.SYSTEM_SCHEDULES
    }


class _NotMigratedError(Exception):
    """The database is not as the code wants it."""


@functools.cache
def _note_that_migrations_are_applied() -> None:
    """Return where they are, and remember it: it costs a look at every file, and a process keeps the code it has.

    Raises _NotMigratedError where some are not.
    """
    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        raise _NotMigratedError


_COUNT = """
SELECT (SELECT count(*) FROM schedules_schedule) AS schedules,
       (SELECT count(*) FROM schedules_schedule
        WHERE synced_generation = generation
          AND (calendar_rules <> %(rules)s OR exact_until < clock_timestamp() + %(notice)s)) AS renewals,
       count(*) FILTER (WHERE NOT is_removal AND sync_error = '') AS pending,
       count(*) FILTER (WHERE NOT is_removal AND sync_error <> '') AS failed,
       count(*) FILTER (WHERE is_removal) AS removals,
       COALESCE(EXTRACT(epoch FROM clock_timestamp() - min(since)), 0)::float AS oldest_seconds,
       (SELECT count(*) FROM schedules_schedule WHERE held_since IS NOT NULL) AS held
FROM (
    SELECT changed_at AS since, sync_error, false AS is_removal FROM schedules_schedule
    WHERE synced_generation <> generation
    UNION ALL
    SELECT deleted_at, '', true FROM schedules_mirrorremoval
) AS unsynced
"""
