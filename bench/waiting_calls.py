"""Many slow calls in flight in one worker: what they hold while they wait.

500 runs are asked for at once, each calls a runner that takes 20 seconds. Sampled while all of them wait: the
worker's memory, its database connections, and whether any of these is inside a transaction or holds a lock.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Final

import psutil

from bench import stage
from bench.report import Figure
from bench.sizes import SIZES

CALLS: Final = SIZES.waiting_calls
CALL_SECONDS: Final = SIZES.waiting_seconds
MAX_CONNECTIONS: Final = 20
MAX_MEMORY_MB: Final = 300
MAX_STATEMENTS: Final = 3
PATIENCE_SECONDS: Final = 180
SAMPLE_SECONDS: Final = 0.25
NAME: Final = f"{CALLS} calls of {CALL_SECONDS:g} s in flight"
ABOUT: Final = """
One worker process is given all runs at once. While they wait for their runner, the worker's memory and connections are
sampled, and the server's own log counts the statements that the worker sent. Nothing is compared with another side: the
limits are those that the design sets itself. Where the engine is too slow to have all of them in flight at once, what
they hold while they wait has no figure.
"""

_SAMPLE: Final = """
SELECT (SELECT count(*) FROM pg_stat_activity WHERE application_name = %(name)s),
       (SELECT count(*) FROM pg_stat_activity WHERE application_name = %(name)s AND state LIKE 'idle in transaction%%'),
       (SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
        WHERE application_name = %(name)s AND state = 'idle'),
       (SELECT count(*) FROM schedules_schedulerun WHERE status = 'running'),
       (SELECT count(*) FROM schedules_schedulerun WHERE finished_at IS NOT NULL)
"""


@dataclass(slots=True)
class _Peaks:
    """The highest values seen. Those of waiting are taken while every run is in flight; None where that never was."""

    in_flight: int = 0
    connections: int = 0
    memory_mb: float = 0.0
    idle_in_transaction: int | None = None
    locks_while_waiting: int | None = None


def run() -> list[Figure]:
    """Measure, and hold against what the design allows."""
    with stage.built(call_seconds=CALL_SECONDS) as built:
        schedules = stage.seed_schedules(CALLS)
        started = time.monotonic()
        stage.ask_for_runs(schedules)
        peaks = _watch(built)
        seconds = time.monotonic() - started
        succeeded = _succeeded()
        statements = built.statements_of(stage.WORKER_CONNECTION_NAME) / max(succeeded, 1)
    print(f"{succeeded} of {CALLS} succeeded in {seconds:.1f} s", file=sys.stderr)
    while_waiting = {
        "connections idle in a transaction": peaks.idle_in_transaction,
        "locks held while waiting": peaks.locks_while_waiting,
    }
    return [
        Figure(NAME, "runs in flight at once", peaks.in_flight, CALLS, "runs", "1 is all of them"),
        Figure(NAME, "runs that succeeded", succeeded, CALLS, "runs", "1 is all of them"),
        Figure(NAME, "database connections", peaks.connections, MAX_CONNECTIONS, "connections", "at most 1 is allowed"),
        Figure(NAME, "worker's memory (RSS)", peaks.memory_mb, MAX_MEMORY_MB, "MB", "at most 1 is allowed"),
        Figure(NAME, "statements per successful run", statements, MAX_STATEMENTS, "SQL", "at most 1 is allowed"),
        *(Figure(NAME, name, peak, None, "", "0 is none") for name, peak in while_waiting.items() if peak is not None),
    ]


def _watch(built: stage.Stage) -> _Peaks:
    from django.db import connection

    peaks = _Peaks()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        with connection.cursor() as cursor:
            cursor.execute(_SAMPLE, {"name": stage.WORKER_CONNECTION_NAME})
            connections, in_transaction, locks, in_flight, finished = cursor.fetchone()
        peaks.in_flight = max(peaks.in_flight, in_flight)
        peaks.connections = max(peaks.connections, connections)
        peaks.memory_mb = max(peaks.memory_mb, psutil.Process(built.worker.pid).memory_info().rss / 1_000_000)
        if in_flight == CALLS:
            peaks.idle_in_transaction = max(peaks.idle_in_transaction or 0, in_transaction)
            peaks.locks_while_waiting = max(peaks.locks_while_waiting or 0, locks)
        if finished == CALLS:
            break
        time.sleep(SAMPLE_SECONDS)
    return peaks


def _succeeded() -> int:
    from schedules.models import RunStatus, ScheduleRun

    return ScheduleRun.objects.filter(status=RunStatus.SUCCEEDED).count()
