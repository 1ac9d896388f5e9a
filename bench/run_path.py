"""Our path against the bare engine on the same server: a burst of schedules due in one second, and a steady flow.

Both sides call the same sink. The bare one is a workflow with one activity that POSTs; ours besides claims the run in
PostgreSQL, reads the snapshot, records the attempt and the run, sends heartbeats, and keeps two runs of one schedule
apart. The sides take turns, three times each.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleCalendarSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleRange,
    ScheduleSpec,
)

from bench import bare, sink, stage
from bench.report import Figure

ROUNDS: Final = 3
BURST: Final = 300
FLOW: Final = 600
FLOW_IN_FLIGHT: Final = 32
# What the schedules of a round need to be made, mirrors included.
LEAD_SECONDS: Final = 25
PATIENCE_SECONDS: Final = 120
LOWEST_RATE: Final = 0.85
HIGHEST_LATENESS: Final = 1.25


@dataclass(frozen=True, slots=True)
class Taken:
    """One side of one round: start lateness in seconds, ascending, and runs per second."""

    lateness: list[float]
    rate: float

    @property
    def p95(self) -> float:
        """The lateness that one in twenty runs exceeds."""
        return self.lateness[int(len(self.lateness) * 0.95)]


def run() -> list[Figure]:
    """Measure both scenarios."""
    from schedules import system_schedules

    with (
        stage.built(call_seconds=0, log_statements=False) as built,
        stage.process([sys.executable, "-m", "bench.bare"]),
    ):
        system_schedules.install()  # and with them the search attributes
        sides: dict[str, Callable[[], Taken]] = {
            "ours": lambda: _our_burst(built.sink_port),
            "bare": lambda: asyncio.run(_bare_burst(built.sink_port)),
        }
        burst = _take_turns("burst", sides)
        sides = {
            "ours": lambda: asyncio.run(_our_flow(built.sink_port)),
            "bare": lambda: asyncio.run(_bare_flow(built.sink_port)),
        }
        flow = _take_turns("flow", sides)
    return [
        *_figures(f"burst of {BURST} schedules due in one second", burst),
        *_figures(f"steady flow of {FLOW} runs, {FLOW_IN_FLIGHT} starts at a time", flow),
    ]


def _take_turns(name: str, sides: dict[str, Callable[[], Taken]]) -> dict[str, list[Taken]]:
    taken: dict[str, list[Taken]] = {side: [] for side in sides}
    for number in range(ROUNDS):
        # Whoever goes first finds the smaller database, so that changes too.
        order = list(sides) if number % 2 == 0 else list(reversed(sides))
        for side in order:
            result = sides[side]()
            taken[side].append(result)
            print(
                f"{name} {number + 1}, {side}: {result.rate:.1f} runs/s, lateness p50 "
                f"{statistics.median(result.lateness):.2f} s, p95 {result.p95:.2f} s",
                file=sys.stderr,
                flush=True,
            )
    return taken


def _figures(scenario: str, taken: dict[str, list[Taken]]) -> list[Figure]:
    def median(side: str, figure: Callable[[Taken], float]) -> float:
        return statistics.median(figure(round_) for round_ in taken[side])

    return [
        Figure(
            scenario,
            "runs per second",
            median("ours", lambda one: one.rate),
            median("bare", lambda one: one.rate),
            "runs/s",
            f"at least {LOWEST_RATE} is wanted",
        ),
        Figure(
            scenario,
            "start lateness, p95",
            median("ours", lambda one: one.p95),
            median("bare", lambda one: one.p95),
            "s",
            f"at most {HIGHEST_LATENESS} is wanted",
        ),
        Figure(
            scenario,
            "start lateness, p50",
            median("ours", lambda one: statistics.median(one.lateness)),
            median("bare", lambda one: statistics.median(one.lateness)),
            "s",
            "",
        ),
    ]


def _next_minute() -> datetime:
    """The next full minute that leaves time to prepare for it."""
    ready = datetime.now(UTC) + timedelta(seconds=LEAD_SECONDS)
    return ready.replace(second=0, microsecond=0) + timedelta(minutes=1)


def _collect(port: int, path: str, count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(found) < count and time.monotonic() < deadline:
        found += [arrival for arrival in sink.read_arrivals(port) if arrival["path"] == path]
        time.sleep(0.1)
    if len(found) < count:
        raise RuntimeError(f"only {len(found)} of {count} calls arrived at {path}")
    return found


def _burst_result(due: datetime, arrivals: list[dict[str, Any]]) -> Taken:
    late = sorted(arrival["at"] - due.timestamp() for arrival in arrivals)
    return Taken(late, len(late) / late[-1])


def _wait_until(moment: datetime) -> None:
    time.sleep(max(0.0, (moment - datetime.now(UTC)).total_seconds()))


def _our_burst(port: int) -> Taken:
    from django.db import connection

    from schedules import background, convergence, installs
    from schedules.audit import Actor, Source
    from schedules.models import Schedule as Row

    seeded = stage.seed_schedules(BURST)
    due = _next_minute()
    ids = [schedule_id for _, _, schedule_id in seeded]
    now = datetime.now(UTC)
    Row.objects.filter(id__in=ids).update(
        cron=f"{due.minute} {due.hour} * * *",
        enabled=True,
        synced_generation=0,
        exact_until=None,
        accounted_until=now,
        next_slot_at=due,
    )

    def push(entry: tuple[uuid.UUID, uuid.UUID, uuid.UUID]) -> None:
        try:
            convergence.push(tenant_id=entry[0], schedule_id=entry[2])
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(push, seeded))
    sink.read_arrivals(port)
    _wait_until(due)
    result = _burst_result(due, _collect(port, "/v1/execute", BURST))
    _wait_for_records(ids)
    installs.delete_tenant(tenant_id=seeded[0][0], actor=Actor(Source.COMMAND, "bench"))
    background.finish_background_work(timeout_seconds=60)
    return result


def _wait_for_records(schedule_ids: list[uuid.UUID]) -> None:
    from schedules.models import RunStatus, ScheduleRun

    deadline = time.monotonic() + PATIENCE_SECONDS
    runs = ScheduleRun.objects.filter(schedule_id__in=schedule_ids, status=RunStatus.SUCCEEDED)
    while runs.count() < len(schedule_ids):
        if time.monotonic() > deadline:
            raise RuntimeError("not every run was recorded as succeeded")
        time.sleep(0.1)


async def _bare_burst(port: int) -> Taken:
    client = await Client.connect(os.environ["TEMPORAL_ADDRESS"])
    due = _next_minute()
    prefix = uuid.uuid4().hex

    async def create(number: int) -> None:
        schedule_id = f"{prefix}-{number}"
        calendar = ScheduleCalendarSpec(hour=[ScheduleRange(due.hour)], minute=[ScheduleRange(due.minute)])
        await client.create_schedule(
            schedule_id,
            Schedule(
                action=ScheduleActionStartWorkflow(
                    bare.BareRun.run, bare.Post(schedule_id), id=schedule_id, task_queue=bare.TASK_QUEUE
                ),
                spec=ScheduleSpec(calendars=[calendar]),
                policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.ALLOW_ALL),
            ),
        )

    await _each(create, BURST, at_once=8)
    sink.read_arrivals(port)
    await asyncio.to_thread(_wait_until, due)
    result = _burst_result(due, await asyncio.to_thread(_collect, port, bare.PATH, BURST))

    async def delete(number: int) -> None:
        await client.get_schedule_handle(f"{prefix}-{number}").delete()

    await _each(delete, BURST, at_once=8)
    return result


async def _our_flow(port: int) -> Taken:
    from schedules.models import RunStatus, ScheduleRun, Trigger
    from schedules.temporal import run_search_attributes
    from workflows import names
    from workflows.payloads import RunRequest

    seeded = await asyncio.to_thread(stage.seed_schedules, FLOW)
    runs = [uuid.uuid4() for _ in seeded]
    rows = [
        ScheduleRun(
            id=run_id,
            tenant_id=tenant_id,
            install_id=install_id,
            schedule_id=schedule_id,
            trigger=Trigger.RUN_NOW,
            slot=datetime.now(UTC),
            status=RunStatus.QUEUED,
        )
        for run_id, (tenant_id, install_id, schedule_id) in zip(runs, seeded, strict=True)
    ]
    await asyncio.to_thread(ScheduleRun.objects.bulk_create, rows)
    client = await Client.connect(os.environ["TEMPORAL_ADDRESS"])

    async def start(number: int) -> str:
        tenant_id, install_id, schedule_id = seeded[number]
        request = RunRequest(
            str(tenant_id), str(install_id), str(schedule_id), "run_now", str(runs[number]), begins_locally=True
        )
        await client.start_workflow(
            names.RUN_SCHEDULE,
            request,
            id=names.started_workflow_id(request),
            task_queue=os.environ.get("TEMPORAL_TASK_QUEUE", "extension-schedules"),
            search_attributes=run_search_attributes(
                tenant_id=tenant_id,
                install_id=install_id,
                extension_id=install_id,
                schedule_id=schedule_id,
                trigger="run_now",
            ),
        )
        return str(runs[number])

    return await _flow(port, "/v1/execute", start)


async def _bare_flow(port: int) -> Taken:
    client = await Client.connect(os.environ["TEMPORAL_ADDRESS"])
    prefix = uuid.uuid4().hex

    async def start(number: int) -> str:
        run_id = f"{prefix}-{number}"
        await client.start_workflow(bare.BareRun.run, bare.Post(run_id), id=run_id, task_queue=bare.TASK_QUEUE)
        return run_id

    return await _flow(port, bare.PATH, start)


async def _flow(port: int, path: str, start: Callable[[int], Awaitable[str]]) -> Taken:
    """Start runs, a few at a time and as fast as the engine takes them; lateness counts from the start's request."""
    sink.read_arrivals(port)
    asked: dict[str, float] = {}

    async def timed_start(number: int) -> None:
        before = time.time()
        asked[await start(number)] = before

    began = time.time()
    await _each(timed_start, FLOW, at_once=FLOW_IN_FLIGHT)
    arrivals = await asyncio.to_thread(_collect, port, path, FLOW)
    late = sorted(arrival["at"] - asked[arrival["id"]] for arrival in arrivals)
    return Taken(late, FLOW / (max(arrival["at"] for arrival in arrivals) - began))


async def _each(work: Callable[[int], Awaitable[None]], count: int, *, at_once: int) -> None:
    slots = asyncio.Semaphore(at_once)

    async def one(number: int) -> None:
        async with slots:
            await work(number)

    await asyncio.gather(*(one(number) for number in range(count)))
