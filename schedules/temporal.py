"""The gateway to Temporal: builds mirrors from rows (pure) and pushes, removes, describes, lists and starts.

With `schedules.temporal_bridge`, which carries the calls, the only module of the web side that talks to Temporal.
Outages become `DependencyUnavailable`, refusals `MirrorRefused`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from urllib.parse import quote
from uuid import UUID

from django.conf import settings
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleCalendarSpec,
    ScheduleDescription,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleRange,
    ScheduleSpec,
    ScheduleState,
    ScheduleUpdate,
    ScheduleUpdateInput,
    WorkflowExecutionStatus,
)
from temporalio.common import (
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError

from schedules.calendars import UtcCalendar
from schedules.errors import DependencyUnavailable, MirrorRefused, SchedulingError
from schedules.temporal_bridge import RPC_TIMEOUT, ensure_search_attributes, is_missing, read_profile, run
from workflows import names
from workflows.payloads import RunRequest

# A fire later than this is not made up by the engine: it would be told from a fresh one only by its lateness.
CATCH_UP_WINDOW: Final = timedelta(minutes=5)
MAX_NOTE_LENGTH: Final = 512
OUR_PAUSE_NOTE: Final = "Disabled in the scheduler"


class MirrorMissing(SchedulingError):
    """There is no mirror to be changed, and making one is not for who asked."""

    code = "mirror_missing"
    retryable = True


@dataclass(frozen=True, slots=True)
class MirrorState:
    """Everything of a schedule that its mirror shows."""

    tenant_id: UUID
    install_id: UUID
    extension_id: UUID
    schedule_id: UUID
    cron: str
    timezone: str
    calendars: tuple[UtcCalendar, ...]
    active: bool
    generation: int
    deployment: UUID
    # The note of an operator's hold that the row knows of, and of one that somebody has lifted since.
    held_note: str | None = None
    lifted_note: str | None = None

    @property
    def id(self) -> str:
        """The mirror's id in Temporal."""
        return names.mirror_id(install_id=self.install_id, schedule_id=self.schedule_id)


def build_schedule(state: MirrorState) -> Schedule:
    """The Temporal Schedule that stands for a row. Pure.

    Never carries cron text or a zone for the engine to interpret: it reads some of both in ways of its own. The
    calendars are in UTC, and what they stand for is a comment for operators. Overlap is allowed here, because it is
    decided at the claim, where it leaves a row.
    """
    return Schedule(
        action=ScheduleActionStartWorkflow(
            names.RUN_SCHEDULE,
            RunRequest(str(state.tenant_id), str(state.install_id), str(state.schedule_id), begins_locally=True),
            id=state.id,
            task_queue=settings.TEMPORAL_TASK_QUEUE,
            typed_search_attributes=run_search_attributes(
                tenant_id=state.tenant_id,
                install_id=state.install_id,
                extension_id=state.extension_id,
                schedule_id=state.schedule_id,
                trigger="schedule",
            ),
        ),
        spec=ScheduleSpec(
            calendars=[
                ScheduleCalendarSpec(
                    second=[ScheduleRange(0)],
                    minute=_ranges(calendar.minutes),
                    hour=_ranges(calendar.hours),
                    day_of_month=_ranges(calendar.days),
                    month=_ranges(calendar.months),
                    day_of_week=_ranges(calendar.weekdays),
                    year=_ranges(calendar.years),
                    comment=f"{state.cron} in {state.timezone}",
                )
                for calendar in state.calendars
            ],
            time_zone_name="UTC",
        ),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.ALLOW_ALL, catchup_window=CATCH_UP_WINDOW),
        state=ScheduleState(paused=not state.active, note="" if state.active else OUR_PAUSE_NOTE),
    )


def run_search_attributes(
    *,
    tenant_id: UUID,
    install_id: UUID,
    extension_id: UUID,
    schedule_id: UUID,
    trigger: str,
) -> TypedSearchAttributes:
    """What operators find a run's workflow by."""
    return TypedSearchAttributes(
        [
            SearchAttributePair(names.TENANT_ID, str(tenant_id)),
            SearchAttributePair(names.INSTALL_ID, str(install_id)),
            SearchAttributePair(names.EXTENSION_ID, str(extension_id)),
            SearchAttributePair(names.SCHEDULE_ID, str(schedule_id)),
            SearchAttributePair(names.RUN_TRIGGER, trigger),
        ]
    )


def mirror_search_attributes(state: MirrorState) -> TypedSearchAttributes:
    """What operators find a mirror by, and the generation that it shows."""
    return TypedSearchAttributes(
        [
            *run_search_attributes(
                tenant_id=state.tenant_id,
                install_id=state.install_id,
                extension_id=state.extension_id,
                schedule_id=state.schedule_id,
                trigger="schedule",
            ),
            SearchAttributePair(names.GENERATION, str(state.generation)),
            SearchAttributePair(names.DEPLOYMENT, str(state.deployment)),
        ]
    )


def put_mirror(state: MirrorState, *, exists: bool, may_create: bool = True) -> str | None:
    """Make the mirror show ``state``, whatever it showed before; returns the note of an operator's hold that it kept.

    None where nobody holds it. A repeat changes nothing. ``exists`` is a guess that saves a call; without
    ``may_create`` it has to be right. Raises DependencyUnavailable, MirrorRefused, MirrorMissing.
    """

    async def put(client: Client) -> str | None:
        return await _put_mirror(client, state, exists=exists, may_create=may_create)

    try:
        return run(put)
    except MirrorRefused as error:
        if "search attribute" not in error.message.lower():
            raise
        # The namespace was made anew since this process looked; by now it is known that it lacks ours.
        return run(put)


def remove_mirror(*, install_id: UUID, schedule_id: UUID) -> None:
    """Delete the mirror; one that is gone already is fine. Raises DependencyUnavailable."""
    mirror = names.mirror_id(install_id=install_id, schedule_id=schedule_id)
    run(lambda client: _remove_schedule(client, mirror))


def describe_mirror(*, install_id: UUID, schedule_id: UUID) -> ScheduleDescription | None:
    """What Temporal holds for a schedule, or None. Raises DependencyUnavailable."""
    mirror = names.mirror_id(install_id=install_id, schedule_id=schedule_id)
    return run(lambda client: _describe(client, mirror))


def start_run(request: RunRequest, *, extension_id: UUID, waits: int = 0) -> bool:
    """Start the workflow of a run that waits; returns False where it was started before.

    ``waits`` is how often the run had to join the line, each of which was the end of a workflow. Raises
    DependencyUnavailable.
    """
    return run(lambda client: _start_run(client, request, extension_id, waits))


def cancel_workflow(*, workflow_id: str, run_id: str | None) -> None:
    """Ask the workflow behind a run to stop; one that is gone is fine. Raises DependencyUnavailable."""
    run(lambda client: _cancel_workflow(client, workflow_id, run_id))


def hold_note(*, install_id: UUID, schedule_id: UUID) -> str | None:
    """The note of an operator's hold: of a pause that is not ours. None where there is no such pause.

    Raises DependencyUnavailable.
    """
    mirror = describe_mirror(install_id=install_id, schedule_id=schedule_id)
    if mirror is None or not is_held(mirror):
        return None
    return mirror.schedule.state.note or ""


def is_held(mirror: ScheduleDescription) -> bool:
    """Whether an operator has paused the mirror, and not we."""
    state = mirror.schedule.state
    return state.paused and state.note != OUR_PAUSE_NOTE


def workflow_is_open(*, workflow_id: str, run_id: str | None) -> bool | None:
    """Whether the workflow behind a run still works on it; None where this namespace does not know it.

    Raises DependencyUnavailable.
    """
    return run(lambda client: _workflow_is_open(client, workflow_id, run_id))


def workflow_url(workflow_id: str) -> str:
    """Where Temporal's UI shows a workflow, or an empty text where no UI is configured."""
    if not workflow_id or not settings.TEMPORAL_UI_URL:
        return ""
    namespace = read_profile()["namespace"]
    return f"{settings.TEMPORAL_UI_URL.rstrip('/')}/namespaces/{namespace}/workflows/{quote(workflow_id, safe='')}"


async def _put_mirror(client: Client, state: MirrorState, *, exists: bool, may_create: bool) -> str | None:
    await ensure_search_attributes(client)
    built, schedule, attributes = build_schedule(state), build_schedule(state), mirror_search_attributes(state)
    held = state.held_note
    if held is not None:
        # A mirror that is made anew must not let go of what an operator holds.
        schedule.state = ScheduleState(paused=True, note=held)

    def keep_hold(update: ScheduleUpdateInput) -> ScheduleUpdate:
        # A pause that is not ours is an operator's hold: it outlives what the row says until somebody lifts it, and
        # nobody has lifted one that came after.
        nonlocal held
        note = update.description.schedule.state.note or ""
        held = note if is_held(update.description) and note[:MAX_NOTE_LENGTH] != state.lifted_note else None
        schedule.state = built.state if held is None else ScheduleState(paused=True, note=held)
        return ScheduleUpdate(schedule=schedule, search_attributes=attributes)

    if not exists and may_create:
        try:
            await client.create_schedule(
                state.id,
                schedule,
                search_attributes=attributes,
                rpc_timeout=RPC_TIMEOUT,
            )
        except ScheduleAlreadyRunningError:
            pass  # an earlier push got through and its answer did not
        else:
            return held
    try:
        await client.get_schedule_handle(state.id).update(keep_hold, rpc_timeout=RPC_TIMEOUT)
    except RPCError as error:
        if not is_missing(error):
            raise
        if not may_create:
            raise MirrorMissing("The mirror is not there") from error
        try:
            await client.create_schedule(state.id, schedule, search_attributes=attributes, rpc_timeout=RPC_TIMEOUT)
        except ScheduleAlreadyRunningError as conflict:
            raise DependencyUnavailable("somebody else made the mirror at the same moment") from conflict
    return held


def remove_by_id(mirror_id: str) -> None:
    """Delete what has exactly this id; one that is gone already is fine. Raises DependencyUnavailable."""
    run(lambda client: _remove_schedule(client, mirror_id))


async def _remove_schedule(client: Client, schedule_id: str) -> None:
    try:
        await client.get_schedule_handle(schedule_id).delete(rpc_timeout=RPC_TIMEOUT)
    except RPCError as error:
        if not is_missing(error):
            raise


async def _describe(client: Client, schedule_id: str) -> ScheduleDescription | None:
    try:
        return await client.get_schedule_handle(schedule_id).describe(rpc_timeout=RPC_TIMEOUT)
    except RPCError as error:
        if not is_missing(error):
            raise
        return None


async def _start_run(client: Client, request: RunRequest, extension_id: UUID, waits: int) -> bool:
    await ensure_search_attributes(client)
    try:
        await client.start_workflow(
            names.RUN_SCHEDULE,
            request,
            id=names.started_workflow_id(request, waits=waits),
            task_queue=settings.TEMPORAL_TASK_QUEUE,
            # One request is one run, however often its start is asked for and however long ago it ended.
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            search_attributes=run_search_attributes(
                tenant_id=UUID(request.tenant_id),
                install_id=UUID(request.install_id),
                extension_id=extension_id,
                schedule_id=UUID(request.schedule_id),
                trigger=request.trigger,
            ),
            rpc_timeout=RPC_TIMEOUT,
        )
    except WorkflowAlreadyStartedError:
        return False
    return True


async def _cancel_workflow(client: Client, workflow_id: str, run_id: str | None) -> None:
    try:
        await client.get_workflow_handle(workflow_id, run_id=run_id).cancel(rpc_timeout=RPC_TIMEOUT)
    except RPCError as error:
        if not is_missing(error):
            raise


async def _workflow_is_open(client: Client, workflow_id: str, run_id: str | None) -> bool | None:
    handle = client.get_workflow_handle(workflow_id, run_id=run_id)
    try:
        description = await handle.describe(rpc_timeout=RPC_TIMEOUT)
    except RPCError as error:
        if not is_missing(error):
            raise
        return None
    return description.status is WorkflowExecutionStatus.RUNNING


def _ranges(values: tuple[int, ...]) -> list[ScheduleRange]:
    """The fewest inclusive runs of consecutive values: they are stored and walked by the engine."""
    runs: list[tuple[int, int]] = []
    for value in values:
        if runs and runs[-1][1] == value - 1:
            runs[-1] = (runs[-1][0], value)
        else:
            runs.append((value, value))
    return [ScheduleRange(start=first, end=last) for first, last in runs]
