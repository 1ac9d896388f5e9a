"""What schedules cost while none of them is due, and what their number does to reading and comparing."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from multiprocessing.synchronize import Barrier, Lock
from threading import BrokenBarrierError
from typing import Final

from bench import celery_stage, control_plane, stage, turns
from bench.celery_stage import CeleryStage
from bench.processes import Meter, Usage
from bench.report import Figure, percentile
from bench.sizes import SIZES
from bench.stage import Stage, Web

REBUILT_PER_SECOND: Final = 50.0
# Of one kind in a row: enough that one slow answer does not make a 95th percentile.
REQUESTS: Final = SIZES.requests * SIZES.rounds
WHAT_IS_MEASURED: Final = f"""
schedules that are next due in some twelve hours, and as many of django-celery-beat, each number on services of its own.
In turns: the mirrors are missing at first, and the pass of `manage.py reconcile --force` makes them; the rate counts
the finding out, too. Then a full comparison finds nothing to do; it describes 200 mirrors a second at most, so as to
leave the engine to the runs. Lists and single reads go through the host API over HTTP, of one tenant with fifty
schedules among all the others; Celery's list is a query of the ORM, with no HTTP around it. At last everything is left
alone for {SIZES.idle_seconds:g} s, all numbers at the same time, and each process's processor time is held against that
with the fewest schedules. PostgreSQL serves us and Celery, and Temporal's time is what the mirrors cost the engine. The
worker's own full comparison and purge are held meanwhile, as they would fall into one minute and not into another; what
a comparison costs is measured apart and stands as its share of a minute.
"""
ABOUT: Final = f"""
{" and ".join(f"{count:,}" for count in SIZES.idle_schedules)} {WHAT_IS_MEASURED.strip()} Ten thousand, whose mirrors
alone take the engine minutes, are the scenario "growth to 10,000", and run rows in their growing number are "million
runs".
"""
# Of this process, which has one number of schedules: whether it is its turn to work, and where all wait for each other.
_turn: Lock
_gate: Barrier


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
    """Measure the numbers of a whole call."""
    return measure(SIZES.idle_schedules)


def measure(counts: Sequence[int]) -> list[Figure]:
    """Measure each number of schedules in a process of its own, so that the minute of rest is one for all."""
    context = multiprocessing.get_context("spawn")
    shared = context.Lock(), context.Barrier(len(counts))
    with ProcessPoolExecutor(len(counts), context, _share, shared) as processes:
        try:
            measured = {count: processes.submit(_measure, count) for count in counts}
            # One that fails lets the others wait no longer, which is no failure of theirs.
            ended = sorted(measured, key=lambda count: isinstance(measured[count].exception(), BrokenBarrierError))
            taken = {count: measured[count].result() for count in ended}
        except BaseException:
            # Whatever it was, also a signal: what they measure is of no use any more.
            for process in multiprocessing.active_children():
                process.terminate()
            raise
    return [figure for count in counts for figure in _figures(taken, count)]


def _share(turn: Lock, gate: Barrier) -> None:
    global _turn, _gate
    _turn, _gate = turn, gate
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


def _measure(count: int) -> Taken:
    try:
        with contextlib.ExitStack() as stack:
            built = stack.enter_context(stage.built(call_seconds=0, log_statements=False))
            web = stack.enter_context(stage.web(RUNNER_SERVICE_TOKEN=control_plane.TOKEN))
            celery = None
            with contextlib.suppress(celery_stage.PartMissing):
                celery = stack.enter_context(celery_stage.built(built))
            stage.hold_heavy_passes()
            _gate.wait()  # nobody starts services any more
            with _turn:
                taken = _under_way(built, web, celery, count)
            _gate.wait()  # nobody works any more
            turns.settle()
            meter = Meter(_pids(built, web, celery))
            meter.start()
            time.sleep(SIZES.idle_seconds)
            taken = replace(taken, usage=meter.stop())
            _gate.wait()  # nobody is looked at any more
            return taken
    except BaseException:
        _gate.abort()  # or the others would wait for this one
        raise


def _under_way(built: Stage, web: Web, celery: CeleryStage | None, count: int) -> Taken:
    """What is measured while it works, with so many schedules."""
    from schedules import comparison

    listed = _seed(control_plane.LISTED)
    _seed(count - control_plane.LISTED)
    if celery is not None:
        celery.door.ask("schedule_idle", count=count)
    began = time.monotonic()
    rebuilt_per_second = comparison.compare(force=True).repaired / (time.monotonic() - began)
    meter = Meter({"Temporal": built.engine.process.pid, "PostgreSQL": built.postgres_pid})
    meter.start()
    began, own = time.monotonic(), time.process_time()
    found = comparison.compare()
    comparison_seconds = time.monotonic() - began
    comparison_cpu = time.process_time() - own + sum(usage.cpu_seconds for usage in meter.stop().values())
    if found.drift.total() or found.is_busy or found.compared != count:
        raise RuntimeError(f"after the rebuilding, a comparison still found {found}")
    install_id, schedule_id = listed
    caller = control_plane.Caller(web.port, install_id)
    caller.warm_up()
    list_p95 = _p95(caller, "list")
    read_p95 = _p95(caller, "get", scheduleId=str(schedule_id))
    celery_list_p95 = None
    if celery is not None:
        celery_list_p95 = percentile(sorted(celery.door.ask("time_lists", requests=REQUESTS)), 95)
    taken = Taken(rebuilt_per_second, comparison_seconds, comparison_cpu, list_p95, read_p95, celery_list_p95, {})
    turns.say(f"{count:,} schedules: {taken}")
    return taken


def _seed(count: int) -> tuple[uuid.UUID, uuid.UUID]:
    """So many more enabled schedules that believe to have mirrors; the install and one schedule's id."""
    from schedules.models import Schedule

    now = datetime.now(UTC)
    due = (now + timedelta(hours=12)).replace(minute=0, second=0, microsecond=0)
    seeded = stage.seed_schedules(count)
    _, install_id, schedule_id = seeded[0]
    for minute in range(60):
        some = Schedule.objects.filter(id__in=[one for _, _, one in seeded[minute::60]])
        next_slot = due + timedelta(minutes=minute)
        some.update(cron=f"{minute} {due.hour} * * *", enabled=True, accounted_until=now, next_slot_at=next_slot)
    return install_id, schedule_id


def _pids(built: Stage, web: Web, celery: CeleryStage | None) -> dict[str, int]:
    pids = {"web": web.pid, "worker": built.worker.pid}
    pids |= {"Temporal": built.engine.process.pid, "PostgreSQL": built.postgres_pid}
    if celery is not None:
        pids |= {"beat": celery.beat.pid, "Celery's worker": celery.worker.pid, "Redis": celery.redis.pid}
    return pids


def _p95(caller: control_plane.Caller, operation: str, **members: str) -> float:
    times = []
    for _ in range(REQUESTS):
        began = time.perf_counter()
        caller.call(operation, **members)
        times.append((time.perf_counter() - began) * 1000)
    return percentile(sorted(times), 95)


def _figures(taken: Mapping[int, Taken], count: int) -> list[Figure]:
    fewest = min(taken)
    first, this = taken[fewest], taken[count]
    scenario, beside = f"{count:,} idle schedules", f"{fewest:,} schedules"

    def grown(name: str, measured: float, against: float, unit: str, meaning: str = "") -> Figure:
        return Figure(scenario, name, measured, against, unit, meaning, beside)

    (comparison,) = stage.system_schedules_named("comparison")
    share = timedelta(minutes=1) / comparison.every
    rate, wanted = this.rebuilt_per_second, "at least 1 is wanted"
    found = [
        Figure(scenario, "mirrors rebuilt per second", rate, REBUILT_PER_SECOND, "mirrors/s", wanted),
        grown("a full comparison", this.comparison_seconds, first.comparison_seconds, "s"),
        grown("CPU per minute, full comparisons", this.comparison_cpu * share, first.comparison_cpu * share, "s"),
        grown("list p95 (host API)", this.list_p95_ms, first.list_p95_ms, "ms", "1 is constant"),
        grown("next slot p95 (host API)", this.read_p95_ms, first.read_p95_ms, "ms", "1 is constant"),
    ]
    if this.celery_list_p95_ms is not None and first.celery_list_p95_ms is not None:
        found.append(grown("list p95 (Celery's ORM)", this.celery_list_p95_ms, first.celery_list_p95_ms, "ms"))
    per_minute = 60 / SIZES.idle_seconds
    for name, usage in this.usage.items():
        before = first.usage[name]
        found.append(
            grown(f"CPU per minute, {name}", usage.cpu_seconds * per_minute, before.cpu_seconds * per_minute, "s")
        )
        found.append(grown(f"memory, {name} (PSS)", usage.peak_mb, before.peak_mb, "MB"))
    return found + turns.missing_note(scenario)
