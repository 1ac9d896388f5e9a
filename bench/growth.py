"""What schedules cost while none of them is due, and what their number does to reading, comparing and rebuilding."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from bench import celery_stage, control_plane, stage, turns
from bench.celery_stage import CeleryStage
from bench.processes import Meter, Usage
from bench.report import Figure, percentile
from bench.sizes import SIZES
from bench.stage import Stage, Web

if TYPE_CHECKING:
    from schedules.system_schedules import SystemSchedule

REBUILT_PER_SECOND: Final = 50.0
ABOUT: Final = f"""
Schedules that are next due in twelve hours: {", ".join(f"{count:,}" for count in SIZES.idle_schedules)} of them, with
as many of django-celery-beat beside them. Each time the new ones' mirrors are missing, and the pass of `manage.py
reconcile --force` makes them: the rate counts the finding out, too. Then a full comparison finds nothing to do; it
describes 200 mirrors a second at most, so as to leave the engine to the runs. Lists and single reads go through the
host API over HTTP, of one tenant with fifty schedules among all the others; Celery's list is a query of the ORM, with
no HTTP around it. At last everything is left alone for {SIZES.idle_seconds:g} s, and each process's processor time is
held against that with the fewest schedules. All processes idle side by side: PostgreSQL serves both, and Temporal's
time is what the mirrors cost the engine. The worker's own full comparison, one in a quarter of an hour, is held
meanwhile, as it would fall into one minute and not into another; what it costs is measured apart and stands as its
share of a minute. Run rows in their growing number are the scenario "million runs".
"""


@dataclass(frozen=True, slots=True)
class Taken:
    """What one number of schedules amounts to."""

    rebuilt_per_second: float
    comparison_seconds: float
    comparison_cpu: float
    list_p95_ms: float
    read_p95_ms: float
    celery_list_p95_ms: float | None
    usage: Mapping[str, Usage]


def run() -> list[Figure]:
    """Measure each number of schedules, the next on top of the one before."""
    taken: dict[int, Taken] = {}
    with contextlib.ExitStack() as stack:
        built = stack.enter_context(stage.built(call_seconds=0, log_statements=False))
        web = stack.enter_context(stage.web(RUNNER_SERVICE_TOKEN=control_plane.TOKEN))
        celery = None
        with contextlib.suppress(celery_stage.PartMissing):
            celery = stack.enter_context(celery_stage.built(built))
        _hold_the_comparison()
        listed = _seed(control_plane.LISTED)
        there = control_plane.LISTED if SIZES.idle_schedules[0] > control_plane.LISTED else 0
        for count in SIZES.idle_schedules:
            _seed(count - there)
            if celery is not None:
                celery.door.ask("schedule_idle", count=count - there)
            there = count
            taken[count] = _measure(built, web, celery, listed)
            turns.say(f"{count:,} idle: {taken[count]}")
    return [figure for count in taken for figure in _figures(taken, count)]


def _comparison() -> SystemSchedule:
    from schedules.system_schedules import SYSTEM_SCHEDULES

    (found,) = (one for one in SYSTEM_SCHEDULES if one.name == "comparison")
    return found


def _hold_the_comparison() -> None:
    from temporalio.client import Client

    from schedules import system_schedules

    async def hold() -> None:
        client = await Client.connect(os.environ["TEMPORAL_ADDRESS"])
        await client.get_schedule_handle(_comparison().id).pause(note="bench")

    system_schedules.install()
    asyncio.run(hold())


def _seed(count: int) -> tuple[uuid.UUID, uuid.UUID]:
    """So many more enabled schedules that believe to have mirrors; the install and one schedule's id."""
    from schedules.models import Schedule

    now = datetime.now(UTC)
    due = (now + timedelta(hours=12)).replace(minute=0, second=0, microsecond=0)
    seeded = stage.seed_schedules(count)
    tenant_id, install_id, schedule_id = seeded[0]
    Schedule.objects.filter(tenant_id=tenant_id).update(
        cron=f"0 {due.hour} * * *", enabled=True, accounted_until=now, next_slot_at=due
    )
    return install_id, schedule_id


def _measure(built: Stage, web: Web, celery: CeleryStage | None, listed: tuple[uuid.UUID, uuid.UUID]) -> Taken:
    from schedules import comparison

    began = time.monotonic()
    rebuilt = comparison.compare(force=True).repaired
    rebuilt_per_second = rebuilt / (time.monotonic() - began)
    meter = Meter({"Temporal": built.temporal.pid, "PostgreSQL": built.postgres_pid})
    meter.start()
    began, own = time.monotonic(), time.process_time()
    found = comparison.compare()
    comparison_seconds = time.monotonic() - began
    comparison_cpu = time.process_time() - own + sum(usage.cpu_seconds for usage in meter.stop().values())
    if found.drift.total() or found.is_busy:
        raise RuntimeError(f"after the rebuilding, a comparison still found {found}")
    install_id, schedule_id = listed
    caller = control_plane.Caller(web.port, install_id)
    caller.warm_up()
    list_p95 = _p95(caller, "list")
    read_p95 = _p95(caller, "get", scheduleId=str(schedule_id))
    celery_list = celery.door.ask("list_p95", requests=SIZES.requests) if celery is not None else None
    turns.settle()
    meter = Meter(_pids(built, web, celery))
    meter.start()
    time.sleep(SIZES.idle_seconds)
    return Taken(rebuilt_per_second, comparison_seconds, comparison_cpu, list_p95, read_p95, celery_list, meter.stop())


def _pids(built: Stage, web: Web, celery: CeleryStage | None) -> dict[str, int]:
    pids = {"web": web.pid, "worker": built.worker.pid}
    pids |= {"Temporal": built.temporal.pid, "PostgreSQL": built.postgres_pid}
    if celery is not None:
        pids |= {"beat": celery.beat.pid, "Celery's worker": celery.worker.pid, "Redis": celery.redis.pid}
    return pids


def _p95(caller: control_plane.Caller, operation: str, **members: str) -> float:
    times = []
    for _ in range(SIZES.requests):
        began = time.perf_counter()
        caller.call(operation, **members)
        times.append((time.perf_counter() - began) * 1000)
    return percentile(sorted(times), 95)


def _figures(taken: Mapping[int, Taken], count: int) -> list[Figure]:
    fewest = min(taken)
    first, this = taken[fewest], taken[count]
    scenario, beside = f"{count:,} idle schedules", f"{fewest:,} schedules"
    share = timedelta(minutes=1) / _comparison().every
    rate, at_least = this.rebuilt_per_second, "at least 1 is wanted"
    found = [
        Figure(scenario, "mirrors rebuilt per second", rate, REBUILT_PER_SECOND, "mirrors/s", at_least),
        Figure(
            scenario, "a full comparison", this.comparison_seconds, first.comparison_seconds, "s", "", beside=beside
        ),
        Figure(
            scenario,
            "CPU per minute, full comparisons",
            this.comparison_cpu * share,
            first.comparison_cpu * share,
            "s",
            "",
            beside,
        ),
        Figure(scenario, "list p95 (host API)", this.list_p95_ms, first.list_p95_ms, "ms", "1 is constant", beside),
        Figure(
            scenario, "next slot p95 (host API)", this.read_p95_ms, first.read_p95_ms, "ms", "1 is constant", beside
        ),
    ]
    if this.celery_list_p95_ms is not None and first.celery_list_p95_ms is not None:
        against = first.celery_list_p95_ms
        found.append(Figure(scenario, "list p95 (Celery's ORM)", this.celery_list_p95_ms, against, "ms", "", beside))
    per_minute = 60 / SIZES.idle_seconds
    for name, usage in this.usage.items():
        cpu, before = usage.cpu_seconds * per_minute, first.usage[name].cpu_seconds * per_minute
        found.append(Figure(scenario, f"CPU per minute, {name}", cpu, before, "s", "", beside))
        memory = first.usage[name].peak_mb
        found.append(Figure(scenario, f"memory, {name} (PSS)", usage.peak_mb, memory, "MB", "", beside))
    return found + turns.missing_note(scenario)
