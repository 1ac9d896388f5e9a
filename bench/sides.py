"""The sides of a comparison, each able to do the same: schedules due at an instant, and a flow of runs."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

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

from bench import bare, celery_stage, stage
from bench.celery_stage import CeleryStage
from bench.processes import Managed
from bench.stage import Engine, Stage
from scheduler_project import embedded
from workflows import names

if TYPE_CHECKING:
    from schedules.models import ScheduleRun

OURS: Final = "ours"
BARE: Final = "bare Temporal"
CELERY: Final = "Celery"
ALL: Final = (OURS, BARE, CELERY)
BARE_LOCAL: Final = "bare Temporal, local activity"
# A flow needs no schedules, which is what takes long.
IN_FLOWS: Final = (OURS, BARE, BARE_LOCAL, CELERY)
# What a run is in Temporal, of those sides that stand on it.
WORKFLOW_TYPES: Final = {
    OURS: names.RUN_SCHEDULE,
    BARE: bare.BareRun.__name__,
    BARE_LOCAL: bare.BareLocalRun.__name__,
}
AT_ONCE: Final = 8
STARTS_AT_ONCE: Final = 32
PATIENCE_SECONDS: Final = 120
WHAT_EACH_DOES: Final = f"""
- **Ours** claims each run in PostgreSQL (which also keeps two runs of one schedule apart), reads what it calls in one
  snapshot, POSTs with tenant, version, configuration and an idempotency key, and records attempt and run. A dead
  worker's runs are taken over, and what the engine did not deliver is started from the rows. The rows stay, for the
  tenant to read.
- **Bare Temporal** is one workflow with one activity that POSTs, on the same server, polled for as ours is. It is as
  durable as the engine and keeps the engine's history, but has no rows, no tenants and no policies; its idempotency key
  is the workflow's id. Its activity is a regular one, as the documentation has it; ours makes the first attempt as a
  local activity, which takes the engine fewer steps. In the steady flow there is bare Temporal with a local one, too:
  that is the engine's own limit.
- **Celery** is django-celery-beat with a gevent worker (concurrency {celery_stage.CONCURRENCY}, `acks_late`, prefetch
  1, visibility timeout {celery_stage.VISIBILITY_SECONDS} s) on Redis with an append-only file, written to disk each
  second. Each run writes one row and nothing more. Beat writes down each send at once (`beat_sync_every=1`), which
  costs it several statements a send, so that it does not send twice what it sent before it died. It keeps no history
  and no tenants, and nothing keeps two runs of one schedule apart.
"""


@dataclass(frozen=True, slots=True)
class Service:
    """A process that a side cannot do without, and how to wait until it is up again, where others need it."""

    process: Managed
    wait_until_up: Callable[[], None] = lambda: None


class Side(Protocol):
    """One side. ``path`` is where its calls arrive."""

    name: str
    path: str

    def pids(self) -> dict[str, int]:
        """The processes that work for it."""

    def services(self) -> list[Service]:
        """What fires its schedules and works for it, in the order in which a supervisor starts it again."""

    def prepare(self, count: int, due: Sequence[datetime], *, may_overlap: bool = False) -> None:
        """Make schedules that are due at each of the instants; their runs overlap where that is said, or by nature."""

    def arm(self, due: datetime) -> None:
        """Do what can only be done shortly before an instant."""

    def expected(self, due: datetime) -> set[str]:
        """The ids of the calls that have to arrive for an instant."""

    def wait_until_done(self, due: datetime) -> None:
        """Return once every run of an instant is at its end, with whatever the side records."""

    def disarm(self) -> None:
        """Undo what `arm` did last."""

    def prepare_flow(self, count: int) -> None:
        """Make what the runs of a flow need to be there."""

    def flow(self) -> dict[str, float]:
        """Start the runs, a few at a time and as fast as they are taken; returns when each was asked for."""

    def wait_for_flow(self) -> None:
        """Return once every run of the flow is at its end, with whatever the side records."""


class Ours:
    """The worker and the engine of this project."""

    name = OURS
    path = "/v1/execute"

    def __init__(self, built: Stage, *, begins_locally: bool = True) -> None:
        self._built = built
        self._begins_locally = begins_locally
        self._seeded: list[tuple[uuid.UUID, uuid.UUID, uuid.UUID]] = []
        self._runs: list[ScheduleRun] = []

    def pids(self) -> dict[str, int]:
        """Worker, engine and database."""
        return {
            "worker": self._built.worker.pid,
            "Temporal": self._built.engine.process.pid,
            "PostgreSQL": self._built.postgres_pid,
        }

    def services(self) -> list[Service]:
        """Engine and worker."""
        return [_engine_service(self._built.engine), Service(self._built.worker)]

    def prepare(self, count: int, due: Sequence[datetime], *, may_overlap: bool = False) -> None:
        """Rows, and a mirror for each through the same push that a write asks for."""
        from django.db import connection

        from schedules import convergence
        from schedules.models import OverlapPolicy
        from schedules.models import Schedule as Row

        assert all(moment.second == 0 for moment in due)
        self._seeded = stage.seed_schedules(count)
        minutes = ",".join(str(minute) for minute in sorted({moment.minute for moment in due}))
        hours = ",".join(str(hour) for hour in sorted({moment.hour for moment in due}))
        Row.objects.filter(id__in=[schedule_id for _, _, schedule_id in self._seeded]).update(
            cron=f"{minutes} {hours} * * *",
            enabled=True,
            synced_generation=0,
            exact_until=None,
            accounted_until=datetime.now(UTC),
            next_slot_at=due[0],
            # In line only the newest waits: a call would be left out because a crash has kept the one before.
            overlap_policy=OverlapPolicy.ALLOW if may_overlap else OverlapPolicy.QUEUE,
        )

        def push(entry: tuple[uuid.UUID, uuid.UUID, uuid.UUID]) -> None:
            try:
                convergence.push(tenant_id=entry[0], schedule_id=entry[2])
            finally:
                connection.close()

        with ThreadPoolExecutor(AT_ONCE) as threads:
            list(threads.map(push, self._seeded))

    def arm(self, due: datetime) -> None:
        """Nothing: the mirrors know their time."""

    def expected(self, due: datetime) -> set[str]:
        """Invocation ids, which are functions of the slot."""
        return {str(names.slot_invocation_id(schedule_id=one, slot=due)) for _, _, one in self._seeded}

    def wait_until_done(self, due: datetime) -> None:
        """Until each slot has a run that succeeded, and its workflow has closed."""
        from schedules.models import RunStatus, ScheduleRun

        ids = [schedule_id for _, _, schedule_id in self._seeded]
        runs = ScheduleRun.objects.filter(schedule_id__in=ids, slot=due, status=RunStatus.SUCCEEDED)
        _wait_for(lambda: runs.count() >= len(ids), "not every run was recorded as succeeded")
        _wait_until_closed(WORKFLOW_TYPES[OURS])

    def disarm(self) -> None:
        """Nothing: they are next due at the time of their next turn."""

    def prepare_flow(self, count: int) -> None:
        """Schedules."""
        self._seeded = stage.seed_schedules(count)

    def flow(self) -> dict[str, float]:
        """Rows of queued runs, in one statement, and each run's workflow is started as a run-now starts it."""
        from schedules.models import RunStatus, ScheduleRun, Trigger

        runs = [
            ScheduleRun(
                id=uuid.uuid4(),
                tenant_id=tenant_id,
                install_id=install_id,
                schedule_id=schedule_id,
                trigger=Trigger.RUN_NOW,
                slot=datetime.now(UTC),
                status=RunStatus.QUEUED,
            )
            for tenant_id, install_id, schedule_id in self._seeded
        ]
        self._runs = ScheduleRun.objects.bulk_create(runs)
        return asyncio.run(self._start())

    def wait_for_flow(self) -> None:
        """Until each run has succeeded, and its workflow has closed."""
        from schedules.models import RunStatus, ScheduleRun

        runs = ScheduleRun.objects.filter(id__in=[run.id for run in self._runs], status=RunStatus.SUCCEEDED)
        _wait_for(lambda: runs.count() >= len(self._runs), "not every run was recorded as succeeded")
        _wait_until_closed(WORKFLOW_TYPES[OURS])

    async def _start(self) -> dict[str, float]:
        from schedules.temporal import run_search_attributes
        from workflows.payloads import RunRequest

        client = await Client.connect(os.environ["TEMPORAL_ADDRESS"])

        async def start(number: int) -> str:
            run = self._runs[number]
            ids = str(run.tenant_id), str(run.install_id), str(run.schedule_id)
            request = RunRequest(*ids, "run_now", str(run.id), begins_locally=self._begins_locally)
            await client.start_workflow(
                names.RUN_SCHEDULE,
                request,
                id=names.started_workflow_id(request),
                task_queue=os.environ.get("TEMPORAL_TASK_QUEUE", "extension-schedules"),
                search_attributes=run_search_attributes(
                    tenant_id=run.tenant_id,
                    install_id=run.install_id,
                    extension_id=run.install_id,
                    schedule_id=run.schedule_id,
                    trigger="run_now",
                ),
            )
            return str(run.id)

        return await _start_each(start, len(self._runs))


class Bare:
    """The engine with the least that can be done on it. Its name says which workflow does it."""

    path = bare.PATH

    def __init__(self, engine: Engine, worker: Managed, *, name: str = BARE) -> None:
        self.name = name
        self._engine = engine
        self._worker = worker
        self._prefix = ""
        self._count = 0

    def pids(self) -> dict[str, int]:
        """Its own worker, and the same engine."""
        return {"worker": self._worker.pid, "Temporal": self._engine.process.pid}

    def services(self) -> list[Service]:
        """Engine and worker."""
        return [_engine_service(self._engine), Service(self._worker)]

    def prepare(self, count: int, due: Sequence[datetime], *, may_overlap: bool = False) -> None:  # noqa: ARG002
        """Schedules made by the SDK, whose runs overlap."""
        self._prefix, self._count = uuid.uuid4().hex, count
        asyncio.run(self._create([_calendar(moment) for moment in due]))

    async def _create(self, calendars: Sequence[ScheduleCalendarSpec]) -> None:
        client = await Client.connect(os.environ["TEMPORAL_ADDRESS"])

        async def create(number: int) -> None:
            schedule_id = f"{self._prefix}-{number}"
            action = ScheduleActionStartWorkflow(
                WORKFLOW_TYPES[self.name], bare.Post(schedule_id), id=schedule_id, task_queue=bare.TASK_QUEUE
            )
            policy = SchedulePolicy(overlap=ScheduleOverlapPolicy.ALLOW_ALL)
            made = Schedule(action=action, spec=ScheduleSpec(calendars=calendars), policy=policy)
            await client.create_schedule(schedule_id, made)

        await each(create, self._count, at_once=AT_ONCE)

    def arm(self, due: datetime) -> None:
        """Nothing: the schedules know their time."""

    def expected(self, due: datetime) -> set[str]:
        """The workflows' ids, which the engine makes of the schedule's and the time."""
        return {f"{self._prefix}-{number}-{due:%Y-%m-%dT%H:%M:%SZ}" for number in range(self._count)}

    def wait_until_done(self, due: datetime) -> None:  # noqa: ARG002 - of all
        """Until each workflow has closed."""
        _wait_until_closed(WORKFLOW_TYPES[self.name])

    def disarm(self) -> None:
        """Nothing: they are next due at the time of their next turn."""

    def prepare_flow(self, count: int) -> None:
        """Nothing but to know how many."""
        self._count = count

    def flow(self) -> dict[str, float]:
        """Workflows started by the SDK."""
        return asyncio.run(self._start())

    def wait_for_flow(self) -> None:
        """Until each workflow has closed."""
        _wait_until_closed(WORKFLOW_TYPES[self.name])

    async def _start(self) -> dict[str, float]:
        client = await Client.connect(os.environ["TEMPORAL_ADDRESS"])
        prefix = uuid.uuid4().hex

        async def start(number: int) -> str:
            run_id = f"{prefix}-{number}"
            started, post = WORKFLOW_TYPES[self.name], bare.Post(run_id)
            await client.start_workflow(started, post, id=run_id, task_queue=bare.TASK_QUEUE)
            return run_id

        return await _start_each(start, self._count)


class CelerySide:
    """Celery's beat and worker."""

    name = CELERY
    path = celery_stage.PATH

    def __init__(self, built: Stage, celery: CeleryStage) -> None:
        self._built = built
        self._celery = celery
        self._count = 0
        self._prefix = ""

    def pids(self) -> dict[str, int]:
        """Worker, beat, broker and database."""
        celery = self._celery
        return {
            "worker": celery.worker.pid,
            "beat": celery.beat.pid,
            "Redis": celery.redis.pid,
            "PostgreSQL": self._built.postgres_pid,
        }

    def services(self) -> list[Service]:
        """Broker, beat and worker."""
        redis = Service(
            self._celery.redis, partial(embedded.wait_for_port, self._celery.redis_port, patience_seconds=10)
        )
        return [redis, Service(self._celery.beat), Service(self._celery.worker)]

    def prepare(self, count: int, due: Sequence[datetime], *, may_overlap: bool = False) -> None:  # noqa: ARG002
        """Nothing yet: one of its intervals ends at one instant only. Runs overlap."""
        self._count = count

    def arm(self, due: datetime) -> None:
        """The round's schedules; those of the round before are disabled."""
        self.disarm()
        self._prefix = uuid.uuid4().hex
        self._celery.door.ask("schedule", prefix=self._prefix, count=self._count, due=due.timestamp())

    def expected(self, due: datetime) -> set[str]:  # noqa: ARG002 - of the round that is armed
        """The schedules' names."""
        return {f"{self._prefix}-{number}" for number in range(self._count)}

    def wait_until_done(self, due: datetime) -> None:  # noqa: ARG002 - of the round that is armed
        """Until each call has its row."""
        _wait_for(
            lambda: self._celery.door.ask("recorded", prefix=self._prefix) >= self._count, "not every call has its row"
        )

    def disarm(self) -> None:
        """Disable the last round's schedules."""
        if self._prefix:
            self._celery.door.ask("drop", prefix=self._prefix)

    def prepare_flow(self, count: int) -> None:
        """Nothing but names."""
        self._prefix, self._count = uuid.uuid4().hex, count

    def flow(self) -> dict[str, float]:
        """Tasks queued from threads."""
        members = {"prefix": self._prefix, "count": self._count, "at_once": STARTS_AT_ONCE}
        asked: dict[str, float] = self._celery.door.ask("send", **members)
        return asked

    def wait_for_flow(self) -> None:
        """Until each call has its row."""
        self.wait_until_done(datetime.now(UTC))


def _engine_service(engine: Engine) -> Service:
    wait = partial(embedded.wait_for_temporal, engine.port, patience_seconds=embedded.START_PATIENCE_SECONDS)
    return Service(engine.process, wait)


def _calendar(moment: datetime) -> ScheduleCalendarSpec:
    hour, minute, second = (ScheduleRange(part) for part in (moment.hour, moment.minute, moment.second))
    return ScheduleCalendarSpec(hour=[hour], minute=[minute], second=[second])


def _wait_for(condition: Callable[[], bool], complaint: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(complaint)
        time.sleep(0.1)


def _wait_until_closed(workflow_type: str) -> None:
    async def count() -> int:
        client = await Client.connect(os.environ["TEMPORAL_ADDRESS"])
        query = f"WorkflowType = '{workflow_type}' AND ExecutionStatus = 'Running'"
        return (await client.count_workflows(query)).count

    _wait_for(lambda: asyncio.run(count()) == 0, f"not every {workflow_type} came to its end")


async def _start_each(start: Callable[[int], Awaitable[str]], count: int) -> dict[str, float]:
    asked: dict[str, float] = {}

    async def timed_start(number: int) -> None:
        before = time.time()
        asked[await start(number)] = before

    await each(timed_start, count, at_once=STARTS_AT_ONCE)
    return asked


async def each(work: Callable[[int], Awaitable[None]], count: int, *, at_once: int) -> None:
    """Do the work for each number, so many at a time."""
    slots = asyncio.Semaphore(at_once)

    async def one(number: int) -> None:
        async with slots:
            await work(number)

    await asyncio.gather(*(one(number) for number in range(count)))
