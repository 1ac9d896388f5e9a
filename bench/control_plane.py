"""What callers of the APIs wait for: schedules created, updated, listed and deleted through the host API over HTTP.

Each figure is taken with one caller and with eight, each of them an install of its own, against one web process as a
deployment runs it. The limit to compare with is the engine's own ``create_schedule``, called by as many callers.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import random
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

from bench import stage
from bench.report import Figure, percentile
from bench.sizes import SIZES
from scheduler_project import embedded

CALLERS: Final = 8
CALLS_OF_EACH: Final = SIZES.calls_of_each
LISTED: Final = 50
LIMIT_MS: Final = 50.0
MIRRORED_LIMIT_MS: Final = 1000.0
SETTLING_SECONDS: Final = 20.0
TOKEN: Final = "bench-runner-token"  # noqa: S105 - of a throw-away server
NAME: Final = "control plane"
ABOUT: Final = "todo"


@dataclass(frozen=True, slots=True)
class Taken:
    """The time of each call in milliseconds, ascending, and calls per second."""

    milliseconds: list[float]
    per_second: float

    @property
    def p50(self) -> float:
        """The median."""
        return percentile(self.milliseconds, 50)

    @property
    def p95(self) -> float:
        """What nineteen of twenty calls stay below."""
        return percentile(self.milliseconds, 95)


class Caller:
    """One runner's connection, on behalf of one install."""

    def __init__(self, port: int, install_id: uuid.UUID) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._path = f"/api/internal/ext-scheduler/install/{install_id}"
        self.created: list[str] = []

    def call(self, operation: str, **members: Any) -> Any:
        """The answer's body; an assertion error where it is a refusal."""
        body = json.dumps({"operation": operation, **members})
        headers = {"x-runner-auth": TOKEN, "content-type": "application/json"}
        self._connection.request("POST", self._path, body, headers)
        answer = self._connection.getresponse()
        said = json.loads(answer.read())
        assert answer.status < 300, said
        assert said.get("success", True), said
        return said

    def warm_up(self) -> None:
        """A connection of its own, and threads of the server that have done everything once."""
        self._connection.close()
        for _ in range(3):
            self.call("getEndpoints")

    def create(self) -> None:
        """One more schedule, at some minute."""
        minute, hour = random.randrange(60), random.randrange(24)
        said = self.call("create", endpoint="POST /api/call", cron=f"{minute} {hour} * * *", payload={"n": minute})
        self.created.append(said["scheduleId"])

    def update(self) -> None:
        """Another time for one of its schedules."""
        cron = f"{random.randrange(60)} {random.randrange(24)} * * *"
        self.call("update", scheduleId=random.choice(self.created), cron=cron)

    def delete(self) -> None:
        """One schedule less."""
        self.call("delete", scheduleId=self.created.pop())

    def read(self) -> None:
        """All of them."""
        said = self.call("list")
        assert len(said["schedules"]) >= LISTED


def run() -> list[Figure]:
    """Measure with Temporal at hand, beside the engine's own call, and then with Temporal away."""
    # The callers are threads of this process: an answer must not wait for another caller's turn to end.
    sys.setswitchinterval(0.0002)
    with stage.built(call_seconds=0, log_statements=False):
        installs = [stage.seed_schedules(LISTED)[0][1] for _ in range(CALLERS)]
        limits = {"SCHEDULER_HOST_API_WRITES_PER_MINUTE": "100000", "SCHEDULER_MAX_PER_INSTALL": "100000"}
        environment = {**limits, "RUNNER_SERVICE_TOKEN": TOKEN}
        healthy: dict[tuple[str, int], Taken] = {}
        away: dict[tuple[str, int], Taken] = {}
        with stage.web(**environment) as web, stage.web(**environment, TEMPORAL_ADDRESS=_nowhere()) as other:
            for callers in (1, CALLERS):
                healthy |= _measure_operations(web.port, installs[:callers])
            mirrored = asyncio.run(_until_mirrored(web.port, installs[0]))
            for callers in (1, CALLERS):
                away |= _measure_operations(other.port, installs[:callers], settles=False)
        raw = {callers: asyncio.run(_raw_creates(callers)) for callers in (1, CALLERS)}
    p95 = percentile(mirrored, 95)
    print(f"create until its mirror is there: p50 {percentile(mirrored, 50):.0f} ms, p95 {p95:.0f} ms", file=sys.stderr)
    in_force = Figure(NAME, "from a create to its mirror: p95", p95, MIRRORED_LIMIT_MS, "ms", "at most 1 is wanted")
    return [*_figures(healthy, away, raw), in_force]


def _measure_operations(
    port: int, installs: Sequence[uuid.UUID], *, settles: bool = True
) -> dict[tuple[str, int], Taken]:
    operations: dict[str, Callable[[Caller], None]] = {
        "list": Caller.read,
        "create": Caller.create,
        "update": Caller.update,
        "delete": Caller.delete,
    }
    taken = {}
    callers = [Caller(port, install_id) for install_id in installs]
    for name, operation in operations.items():
        for caller in callers:
            caller.warm_up()
        taken[name, len(callers)] = _measure(operation, callers)
        if settles:
            _wait_for_mirrors(installs)
    return taken


def _wait_for_mirrors(installs: Sequence[uuid.UUID]) -> None:
    """Let the pushes that an operation left to the background come to their end, where they can."""
    from django.db.models import F

    from schedules.models import MirrorRemoval, Schedule

    deadline = time.monotonic() + SETTLING_SECONDS
    while time.monotonic() < deadline:
        unsynced = Schedule.objects.filter(install_id__in=installs, synced_generation__lt=F("generation"))
        if not unsynced.exists() and not MirrorRemoval.objects.filter(install_id__in=installs).exists():
            return
        time.sleep(0.1)


def _measure(operation: Callable[[Caller], None], callers: Sequence[Caller]) -> Taken:
    def one_caller(caller: Caller) -> list[float]:
        times = []
        for _ in range(CALLS_OF_EACH):
            began = time.perf_counter()
            operation(caller)
            times.append((time.perf_counter() - began) * 1000)
        return times

    began = time.perf_counter()
    with ThreadPoolExecutor(len(callers)) as threads:
        times = sorted(single for each in threads.map(one_caller, callers) for single in each)
    return Taken(times, len(times) / (time.perf_counter() - began))


async def _until_mirrored(port: int, install_id: uuid.UUID) -> list[float]:
    """From the answer to a create until Temporal describes its mirror, in milliseconds, ascending."""
    from temporalio.client import Client
    from temporalio.service import RPCError

    from workflows import names

    client, caller, times = await Client.connect(os.environ["TEMPORAL_ADDRESS"]), Caller(port, install_id), []
    for _ in range(CALLS_OF_EACH):
        await asyncio.to_thread(caller.create)
        began = time.perf_counter()
        handle = client.get_schedule_handle(names.mirror_id(install_id=install_id, schedule_id=caller.created[-1]))
        while True:
            try:
                await handle.describe()
            except RPCError:
                await asyncio.sleep(0.005)
            else:
                break
        times.append((time.perf_counter() - began) * 1000)
    return sorted(times)


async def _raw_creates(callers: int) -> Taken:
    """The engine's own call with a schedule as large as a mirror, and nothing else around it."""
    from temporalio.client import (
        Client,
        Schedule,
        ScheduleActionStartWorkflow,
        ScheduleCalendarSpec,
        ScheduleRange,
        ScheduleSpec,
    )

    from workflows import names

    client = await Client.connect(os.environ["TEMPORAL_ADDRESS"])
    numbers, times = count(), []

    async def one_caller() -> None:
        for _ in range(CALLS_OF_EACH):
            schedule_id = f"raw-{callers}-{next(numbers)}"
            action = ScheduleActionStartWorkflow(names.RUN_SCHEDULE, {}, id=schedule_id, task_queue="nobody")
            at_four = ScheduleCalendarSpec(hour=[ScheduleRange(4)], minute=[ScheduleRange(0)])
            began = time.perf_counter()
            await client.create_schedule(schedule_id, Schedule(action, ScheduleSpec(calendars=[at_four])))
            times.append((time.perf_counter() - began) * 1000)

    began = time.perf_counter()
    await asyncio.gather(*(one_caller() for _ in range(callers)))
    return Taken(sorted(times), len(times) / (time.perf_counter() - began))


def _figures(
    healthy: dict[tuple[str, int], Taken], away: dict[tuple[str, int], Taken], raw: dict[int, Taken]
) -> Iterator[Figure]:
    for (operation, callers), taken in healthy.items():
        what = f"{operation}, {callers} caller{'s' if callers > 1 else ''}"
        without = away[operation, callers]
        print(
            f"{what}: p50 {taken.p50:.1f} ms, p95 {taken.p95:.1f} ms, {taken.per_second:.0f}/s; "
            f"with Temporal away p50 {without.p50:.1f} ms, p95 {without.p95:.1f} ms",
            file=sys.stderr,
        )
        yield Figure(NAME, f"{what}: p95", taken.p95, LIMIT_MS, "ms", "at most 1 is wanted")
        yield Figure(NAME, f"{what}: p95 with Temporal away", without.p95, taken.p95, "ms", "at most 1.2 is wanted")
    for callers, taken in raw.items():
        ours = healthy["create", callers]
        what = f"create, {callers} caller{'s' if callers > 1 else ''}, beside the engine's own"
        print(f"{what}: p50 {taken.p50:.1f} ms, p95 {taken.p95:.1f} ms, {taken.per_second:.0f}/s", file=sys.stderr)
        yield Figure(NAME, what, ours.per_second, taken.per_second, "calls/s", "at least 0.7 is wanted")


def _nowhere() -> str:
    """An address that refuses connections."""
    return f"127.0.0.1:{embedded.free_port()}"
