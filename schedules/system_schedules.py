"""Our own Temporal Schedules: the sweep, the full comparison and the purge, which keep everything else in order.

Workers install them and watch over them. A pause is an operator's and is left alone, and told to whoever asks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

from django.conf import settings
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleState,
    ScheduleUpdate,
    ScheduleUpdateInput,
)
from temporalio.service import RPCError

from schedules import inspection
from schedules.temporal_bridge import RPC_TIMEOUT, ensure_search_attributes, is_missing, run
from workflows import names

OPERATION_TIMEOUT: Final = timedelta(seconds=15)


class Trouble(StrEnum):
    """What can be wrong with one of them."""

    MISSING = "missing"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class SystemSchedule:
    """One of our own schedules. ``longest`` is when a pass that nobody works on any more makes way for the next.

    ``offset`` keeps a pass that asks much of the engine away from the minutes that most cron expressions name.
    """

    name: str
    make_id: Callable[..., str]
    workflow: str
    every: timedelta
    longest: timedelta
    offset: timedelta = timedelta()

    @property
    def id(self) -> str:
        """Its id in Temporal, one for each task queue."""
        return self.make_id(task_queue=settings.TEMPORAL_TASK_QUEUE)

    def build(self) -> Schedule:
        """What Temporal is to hold for it."""
        return Schedule(
            action=ScheduleActionStartWorkflow(
                self.workflow,
                id=f"{self.id}-run",
                task_queue=settings.TEMPORAL_TASK_QUEUE,
                execution_timeout=self.longest,
            ),
            spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=self.every, offset=self.offset)]),
            policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=timedelta(seconds=30)),
        )


SYSTEM_SCHEDULES: Final = (
    SystemSchedule(
        "sweep", names.convergence_schedule_id, names.CONVERGE, every=timedelta(minutes=1), longest=timedelta(minutes=6)
    ),
    SystemSchedule(
        "comparison",
        names.comparison_schedule_id,
        names.COMPARE,
        every=timedelta(minutes=15),
        longest=timedelta(minutes=55),
        offset=timedelta(minutes=7, seconds=40),
    ),
    SystemSchedule(
        "purge",
        names.retention_schedule_id,
        names.PURGE,
        every=timedelta(hours=1),
        longest=timedelta(minutes=55),
        offset=timedelta(minutes=37, seconds=40),
    ),
)


def install() -> None:
    """Make sure that the search attributes and our own schedules exist and say what they should.

    A repeat writes nothing. Raises DependencyUnavailable or MirrorRefused.
    """

    async def all_of_them(client: Client) -> None:
        await ensure_search_attributes(client)
        for one in SYSTEM_SCHEDULES:
            await _put(client, one)

    run(all_of_them, timeout=OPERATION_TIMEOUT)


def find_troubles() -> dict[str, Trouble]:
    """What is wrong, by the names of those that something is wrong with. Raises DependencyUnavailable."""

    async def all_of_them(client: Client) -> dict[str, Trouble]:
        found = {}
        for one in SYSTEM_SCHEDULES:
            try:
                seen = await client.get_schedule_handle(one.id).describe(rpc_timeout=RPC_TIMEOUT)
            except RPCError as error:
                if not is_missing(error):
                    raise
                found[one.name] = Trouble.MISSING
            else:
                if seen.schedule.state.paused:
                    found[one.name] = Trouble.PAUSED
        return found

    return run(all_of_them)


async def _put(client: Client, one: SystemSchedule) -> None:
    wanted = one.build()
    try:
        seen = await client.get_schedule_handle(one.id).describe(rpc_timeout=RPC_TIMEOUT)
    except RPCError as error:
        if not is_missing(error):
            raise
    else:
        if inspection.digest_of(seen.schedule) == inspection.digest_of(wanted):
            return

    def keep_pause(update: ScheduleUpdateInput) -> ScheduleUpdate:
        # The pause alone: a limit on the number of actions would end the passes for good.
        state = update.description.schedule.state
        wanted.state = ScheduleState(paused=state.paused, note=state.note)
        return ScheduleUpdate(schedule=wanted)

    try:
        await client.create_schedule(one.id, wanted, rpc_timeout=RPC_TIMEOUT)
    except ScheduleAlreadyRunningError:
        await client.get_schedule_handle(one.id).update(keep_pause, rpc_timeout=RPC_TIMEOUT)
