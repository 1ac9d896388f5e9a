"""What callers of the APIs wait for: schedules created, updated, listed and deleted through the host API over HTTP.

Each figure is taken with one caller and with eight, each of them an install of its own, against one web app as a
deployment runs it. The limit to compare with is the engine's own ``create_schedule``, called by as many callers; the
usual alternative is a row of django-celery-beat, written by the ORM.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import random
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain, count
from typing import Any, Final

from bench import celery_stage, sides, sink, stage, turns
from bench.celery_stage import CeleryStage
from bench.report import Figure, alone, compared, percentile
from bench.sizes import SIZES
from bench.stage import Stage
from scheduler_project import embedded

CALLERS: Final = 8
LISTED: Final = 50
CHANGES_OF_A_ROUND: Final = SIZES.changes // SIZES.rounds
LIMIT_MS: Final = 50.0
MIRRORED_LIMIT_MS: Final = 1000.0
SETTLING_SECONDS: Final = 60.0
# On average, between two changes that are waited for; beat looks each five seconds.
PAUSE_SECONDS: Final = 1.0
TOKEN: Final = "bench-runner-token"  # noqa: S105 - of a throw-away server
ENVIRONMENT: Final = {
    "SCHEDULER_HOST_API_WRITES_PER_MINUTE": "100000",
    "SCHEDULER_MAX_PER_INSTALL": "100000",
    "RUNNER_SERVICE_TOKEN": TOKEN,
}
NAME: Final = "control plane"
ABOUT: Final = f"""
One caller with {SIZES.calls_alone} calls of each operation, and {CALLERS} that pause for nothing with
{SIZES.calls_of_each} each, {SIZES.rounds} times in turns; each has {LISTED} schedules of its own. Callers, web app,
PostgreSQL and Temporal share the machine.

- **Ours** is the host API over HTTP, gunicorn with four processes: token, limits, validation, row, audit and generation
  in one transaction, and the mirror pushed afterwards. With Temporal away, the web app's Temporal refuses connections.
- **Raw `create_schedule`** is the SDK's call and nothing else: no HTTP, no row, no audit.
- **Celery** is `PeriodicTask` written and read by the ORM in the callers' own process, whose threads eight callers are:
  no HTTP, no token, no validation of who may do what, no audit, and a schedule is not in force until beat looks.

Ours answers as soon as the row is committed, and raw `create_schedule` when the engine has the schedule: "calls per
second" are those that are answered, and "with their mirrors" waits for these, too.

In force: ours from the request to create until Temporal describes the mirror, {SIZES.changes} of them, as many in each
round; bare Temporal's when raw `create_schedule` returns to its one caller; Celery's, as many as ours, from the commit
of a schedule that is due already until its call arrives. Beat looks for changes every five seconds, as it does by
default, and sooner for as many more statements.
"""
RAW: Final = "raw create_schedule"
AWAY: Final = "Temporal away"
MIRRORED: Final = "ours, with the mirrors"


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


# In this order: what is deleted has to be there.
OPERATIONS: Final[dict[str, Callable[[Caller], None]]] = {
    "list": Caller.read,
    "create": Caller.create,
    "update": Caller.update,
    "delete": Caller.delete,
}
Repeats = dict[tuple[str, str, int], list[Taken]]


def run() -> list[Figure]:
    """Measure in turns: Temporal at hand, away, the engine's own call, and Celery's rows."""
    # The callers are threads of this process: an answer must not wait for another caller's turn to end.
    sys.setswitchinterval(0.0002)
    repeats: Repeats = defaultdict(list)
    mirrored: list[float] = []
    sent: list[float] = []
    with contextlib.ExitStack() as stack:
        built = stack.enter_context(stage.built(call_seconds=0, log_statements=False))
        from schedules import sweep

        installs, others = ([stage.seed_schedules(LISTED)[0][1] for _ in range(CALLERS)] for _ in range(2))
        web = stack.enter_context(stage.web(**ENVIRONMENT))
        # Its warnings that Temporal is away are what is asked for.
        other = stack.enter_context(stage.web(**ENVIRONMENT, TEMPORAL_ADDRESS=_nowhere(), LOG_LEVEL="ERROR"))
        celery = None
        with contextlib.suppress(celery_stage.PartMissing):
            celery = stack.enter_context(celery_stage.built(built))

        def away(callers: int) -> None:
            _measure_operations(repeats, AWAY, other.port, others[:callers])
            # What the one that Temporal was away for has left undone, the minute's sweep would do in a later turn.
            sweep.converge_unsynced(insistent=True)
            _wait_for_mirrors(others)

        takes: list[Callable[[int], None]] = [
            lambda callers: _measure_operations(repeats, sides.OURS, web.port, installs[:callers]),
            lambda callers: repeats[RAW, "create", callers].append(asyncio.run(_raw_creates(callers))),
            away,
        ]
        if celery is not None:
            takes.append(partial(_measure_celery, repeats, celery))
        for number in range(SIZES.rounds):
            for callers in (1, CALLERS):
                for take in takes if number % 2 == 0 else reversed(takes):
                    take(callers)
            mirrored += asyncio.run(_until_mirrored(web.port, installs[0]))
            sent += _until_sent(built, celery) if celery is not None else []
    raw = sorted(chain.from_iterable(one.milliseconds for one in repeats[RAW, "create", 1]))
    in_force = _in_force(sorted(mirrored), {sides.BARE: raw, sides.CELERY: sorted(sent)})
    return [*_figures(repeats), *in_force, *turns.missing_note(NAME)]


def _calls(callers: int) -> int:
    """How many calls each of so many callers makes."""
    return SIZES.calls_alone if callers == 1 else SIZES.calls_of_each


def _measure_celery(repeats: Repeats, celery: CeleryStage, callers: int) -> None:
    for operation in OPERATIONS:
        said = celery.door.ask("write_schedules", operation=operation, callers=callers, calls=_calls(callers))
        repeats[sides.CELERY, operation, callers].append(Taken(said["milliseconds"], said["per_second"]))


def _measure_operations(repeats: Repeats, side: str, port: int, installs: Sequence[uuid.UUID]) -> None:
    callers = [Caller(port, install_id) for install_id in installs]
    for name, operation in OPERATIONS.items():
        for caller in callers:
            caller.warm_up()
        began = time.perf_counter()
        repeats[side, name, len(callers)].append(_measure(operation, callers))
        if side != AWAY:
            _wait_for_mirrors(installs)
            if name == "create":
                rate = len(callers) * _calls(len(callers)) / (time.perf_counter() - began)
                repeats[MIRRORED, name, len(callers)].append(Taken([], rate))


def measure_creates(port: int, installs: Sequence[uuid.UUID]) -> Taken:
    """Creates by a caller for each install; their mirrors are there at the end."""
    callers = [Caller(port, install_id) for install_id in installs]
    for caller in callers:
        caller.warm_up()
    taken = _measure(Caller.create, callers)
    _wait_for_mirrors(installs)
    return taken


def _wait_for_mirrors(installs: Sequence[uuid.UUID]) -> None:
    """Let the pushes that an operation left to the background come to their end; raises RuntimeError."""
    from django.db.models import F

    from schedules.models import MirrorRemoval, Schedule

    deadline = time.monotonic() + SETTLING_SECONDS
    while time.monotonic() < deadline:
        unsynced = Schedule.objects.filter(install_id__in=installs, synced_generation__lt=F("generation"))
        if not unsynced.exists() and not MirrorRemoval.objects.filter(install_id__in=installs).exists():
            return
        time.sleep(0.05)
    raise RuntimeError("the mirrors were not made in time")


def _measure(operation: Callable[[Caller], None], callers: Sequence[Caller]) -> Taken:
    def one_caller(caller: Caller) -> list[float]:
        times = []
        for _ in range(_calls(len(callers))):
            began = time.perf_counter()
            operation(caller)
            times.append((time.perf_counter() - began) * 1000)
        return times

    began = time.perf_counter()
    with ThreadPoolExecutor(len(callers)) as threads:
        times = sorted(single for each in threads.map(one_caller, callers) for single in each)
    return Taken(times, len(times) / (time.perf_counter() - began))


async def _until_mirrored(port: int, install_id: uuid.UUID) -> list[float]:
    """From the request to create until Temporal describes the mirror, in milliseconds."""
    from temporalio.client import Client
    from temporalio.service import RPCError

    from workflows import names

    client, caller, times = await Client.connect(os.environ["TEMPORAL_ADDRESS"]), Caller(port, install_id), []
    for _ in range(CHANGES_OF_A_ROUND):
        began = time.perf_counter()
        await asyncio.to_thread(caller.create)
        handle = client.get_schedule_handle(names.mirror_id(install_id=install_id, schedule_id=caller.created[-1]))
        while True:
            try:
                await handle.describe()
            except RPCError:
                await asyncio.sleep(0.005)
            else:
                break
        times.append((time.perf_counter() - began) * 1000)
    while caller.created:
        await asyncio.to_thread(caller.delete)  # each caller is to list as many as before
    await asyncio.to_thread(_wait_for_mirrors, [install_id])
    return times


async def _raw_creates(callers: int) -> Taken:
    """The engine's own call with a schedule of one time a day, and nothing else around it."""
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
    numbers, times, prefix = count(), [], uuid.uuid4().hex

    async def one_caller(*, calls: int) -> None:
        for _ in range(calls):
            schedule_id = f"{prefix}-{next(numbers)}"
            action = ScheduleActionStartWorkflow(names.RUN_SCHEDULE, {}, id=schedule_id, task_queue="nobody")
            at_four = ScheduleCalendarSpec(hour=[ScheduleRange(4)], minute=[ScheduleRange(0)])
            began = time.perf_counter()
            await client.create_schedule(schedule_id, Schedule(action, ScheduleSpec(calendars=[at_four])))
            times.append((time.perf_counter() - began) * 1000)

    # As all callers do: one that does not count.
    await one_caller(calls=1)
    times.clear()
    began = time.perf_counter()
    await asyncio.gather(*(one_caller(calls=_calls(callers)) for _ in range(callers)))
    return Taken(sorted(times), len(times) / (time.perf_counter() - began))


def _until_sent(built: Stage, celery: CeleryStage) -> list[float]:
    """From the commit of a schedule that is due until its call arrives, in milliseconds."""
    committed: dict[str, float] = {}
    sink.read_arrivals(built.sink_port)
    for _ in range(CHANGES_OF_A_ROUND):
        # Commits that keep step with beat's looking would all wait equally long.
        time.sleep(random.uniform(0, 2 * PAUSE_SECONDS))
        name = f"force-{uuid.uuid4().hex}"
        committed[f"{name}-0"] = celery.door.ask("overdue", name=name)
    arrivals = turns.collect(built.sink_port, celery_stage.PATH, committed)
    return [(arrival["at"] - committed[arrival["id"]]) * 1000 for arrival in arrivals]


def _in_force(mirrored: Sequence[float], of_others: Mapping[str, Sequence[float]]) -> Iterator[Figure]:
    """Each ascending, in milliseconds."""
    name = "from a create until it is in force"
    for percent in (50, 95):
        measured = percentile(mirrored, percent)
        if percent == 95:
            yield Figure(NAME, f"{name}: p95", measured, MIRRORED_LIMIT_MS, "ms", "at most 1 is wanted")
        for side, times in of_others.items():
            if times:
                against = percentile(times, percent)
                yield Figure(NAME, f"{name}: p{percent}", measured, against, "ms", "", beside=side)


def _figures(repeats: Repeats) -> Iterator[Figure]:
    for operation in OPERATIONS:
        for callers in (1, CALLERS):
            yield from _figures_of(repeats, operation, callers)


def _figures_of(repeats: Repeats, operation: str, callers: int) -> Iterator[Figure]:
    what = f"{operation}, {callers} caller{'s' if callers > 1 else ''}"
    by_side = {side: repeats[side, operation, callers] for side in (sides.OURS, AWAY, RAW, sides.CELERY)}

    def of(read: Callable[[Taken], float], *wanted: str) -> dict[str, list[float]]:
        return {side: [read(one) for one in by_side[side]] for side in wanted if by_side[side]}

    p95 = of(lambda one: one.p95, sides.OURS)[sides.OURS]
    yield alone(NAME, f"{what}: p95", "ms", p95, "at most 1 is wanted", against=LIMIT_MS)
    for name, unit, meaning, read in (
        ("p50", "ms", "", lambda one: one.p50),
        ("p95", "ms", "at most 1.2 is wanted", lambda one: one.p95),
        ("calls per second", "calls/s", "", lambda one: one.per_second),
    ):
        away = of(read, AWAY, sides.OURS)
        yield from compared(NAME, f"{what}: {name} with Temporal away", unit, away, {sides.OURS: meaning})
    if mirrored := repeats.get((MIRRORED, operation, callers)):
        with_mirrors = {sides.OURS: [one.per_second for one in mirrored]} | of(lambda one: one.per_second, RAW)
        yield from compared(NAME, f"{what}: calls per second with their mirrors", "calls/s", with_mirrors, {})
    rates = of(lambda one: one.per_second, sides.OURS, RAW, sides.CELERY)
    wanted = {RAW: "at least 0.7 is wanted"}
    yield from compared(NAME, f"{what}: calls per second", "calls/s", rates, wanted)
    for name, read in (("p50", lambda one: one.p50), ("p95", lambda one: one.p95)):
        yield from compared(NAME, f"{what}: {name}", "ms", of(read, sides.OURS, RAW, sides.CELERY), {})


def _nowhere() -> str:
    """An address that refuses connections."""
    return f"127.0.0.1:{embedded.free_port()}"
