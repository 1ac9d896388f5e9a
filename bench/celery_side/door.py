"""``python -m bench.celery_side.door``: what the benchmarks ask of the Celery side, one JSON document a line.

``{"do": NAME, ...}`` in, ``{"answer": ...}`` or ``{"error": ...}`` out. Each answer comes once the work is committed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import chain
from threading import Barrier
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bench.celery_side.settings")
django.setup()

from django.core.management import call_command  # noqa: E402 - Django has to be set up first
from django.db import connection  # noqa: E402
from django_celery_beat.models import IntervalSchedule, PeriodicTask, PeriodicTasks  # noqa: E402

from bench.celery_side.app import call_task  # noqa: E402
from bench.celery_side.models import CallRecord  # noqa: E402

LISTED = 50


def migrate() -> None:
    """Make the tables."""
    call_command("migrate", run_syncdb=True, verbosity=0)


def schedule(prefix: str, count: int, due: float) -> None:
    """Schedules that are due at an instant and then daily. They are as if they had run a day before.

    Beat's crontab knows minutes only, so these are intervals, which also take it less work to evaluate. With the day
    before written down, a beat that dies at the instant and comes back still knows that they are due.
    """
    daily, _ = IntervalSchedule.objects.get_or_create(every=1, period=IntervalSchedule.DAYS)
    ran_at = datetime.fromtimestamp(due, UTC) - timedelta(days=1)
    PeriodicTask.objects.bulk_create(
        PeriodicTask(
            name=f"{prefix}-{number}",
            task=call_task.name,
            interval=daily,
            args=json.dumps([f"{prefix}-{number}"]),
            last_run_at=ran_at,
        )
        for number in range(count)
    )
    # A bulk statement sends no signals, and this row is where beat looks for changes.
    PeriodicTasks.update_changed()


def schedule_idle(count: int) -> None:
    """Schedules that are next due in half a day."""
    schedule(f"idle-{time.time():.3f}", count, time.time() + 43_200)


def drop(prefix: str) -> None:
    """Disable the schedules of a round."""
    PeriodicTask.objects.filter(name__startswith=f"{prefix}-").update(enabled=False)
    PeriodicTasks.update_changed()


def send(prefix: str, count: int, at_once: int) -> dict[str, float]:
    """Queue so many calls, a few at a time; returns when each was asked for."""
    asked = {}
    # It is made where it is first asked for, which only one thread may be.
    assert call_task.app.pool

    def one(number: int) -> None:
        name = f"{prefix}-{number}"
        asked[name] = time.time()
        call_task.apply_async([name])

    with ThreadPoolExecutor(at_once) as threads:
        list(threads.map(one, range(count)))
    return asked


def recorded(prefix: str) -> int:
    """How many calls of a round have their row."""
    return (
        CallRecord.objects.filter(name__startswith=f"{prefix}-", status="succeeded").values("name").distinct().count()
    )


def overdue(name: str) -> float:
    """One schedule that is due as soon as beat knows of it; returns the time of the commit."""
    schedule(name, 1, time.time())
    return time.time()


def write_schedules(operation: str, callers: int, calls: int) -> dict[str, Any]:
    """Create, update, list or delete schedules with the ORM; the time of each in milliseconds, and calls per second."""
    hourly, _ = IntervalSchedule.objects.get_or_create(every=1, period=IntervalSchedule.HOURS)
    daily, _ = IntervalSchedule.objects.get_or_create(every=1, period=IntervalSchedule.DAYS)

    listed = PeriodicTask.objects.filter(name__startswith="listed-")
    for number in range(listed.count(), LISTED):
        PeriodicTask.objects.create(name=f"listed-{number}", task=call_task.name, interval=daily, enabled=False)

    def act(name: str) -> None:
        if operation == "create":
            PeriodicTask.objects.create(name=name, task=call_task.name, interval=daily, enabled=False)
        elif operation == "update":
            task = PeriodicTask.objects.get(name=name)
            task.interval = hourly
            task.save()
        elif operation == "delete":
            PeriodicTask.objects.get(name=name).delete()
        else:
            assert len(PeriodicTask.objects.filter(name__startswith="listed-").order_by("-id")[:LISTED]) == LISTED

    def one_caller(caller: int) -> tuple[float, list[float], float]:
        """When it began, each call's milliseconds, and when it ended; its connection is there before."""
        listed.exists()
        are_ready.wait()
        times, began = [], time.perf_counter()
        for number in range(calls):
            started = time.perf_counter()
            act(f"plane-{callers}-{caller}-{number}")
            times.append((time.perf_counter() - started) * 1000)
        ended = time.perf_counter()
        connection.close()
        return began, times, ended

    are_ready = Barrier(callers)
    with ThreadPoolExecutor(callers) as threads:
        begins, each, ends = zip(*threads.map(one_caller, range(callers)), strict=True)
    times = sorted(chain.from_iterable(each))
    return {"milliseconds": times, "per_second": len(times) / (max(ends) - min(begins))}


def time_lists(requests: int) -> list[float]:
    """How long each of so many lists of fifty schedules took, in milliseconds."""
    times = []
    for _ in range(requests):
        began = time.perf_counter()
        list(PeriodicTask.objects.order_by("-id")[:LISTED])
        times.append((time.perf_counter() - began) * 1000)
    return times


OPERATIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (migrate, schedule, schedule_idle, drop, send, recorded, overdue, write_schedules, time_lists)
}


def main() -> None:
    """Answer until the input ends."""
    # The callers are threads of this process: none must wait for another's turn to end, as on our side.
    sys.setswitchinterval(0.0002)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = {"answer": OPERATIONS[asked.pop("do")](**asked)}
        except Exception as error:  # noqa: BLE001 - the one that asked raises it again
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
