"""The gateway to Temporal: builds mirrors from rows (pure) and pushes, removes, describes, lists and starts.

The only module of the web side that talks to Temporal. Callers are synchronous; one event loop thread for each
process carries the client. Outages become `DependencyUnavailable`, refusals `MirrorRefused`.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote
from uuid import UUID

from django.conf import settings
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import (
    AddSearchAttributesRequest,
    ListSearchAttributesRequest,
)
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleCalendarSpec,
    ScheduleDescription,
    ScheduleIntervalSpec,
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
from temporalio.envconfig import ClientConfig
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from schedules.calendars import UtcCalendar
from schedules.errors import DependencyUnavailable, MirrorRefused
from workflows import names
from workflows.payloads import RunRequest

T = TypeVar("T")

DEFAULT_ADDRESS: Final = "127.0.0.1:7233"
# A fire later than this is not made up by the engine: it would be told from a fresh one only by its lateness.
CATCH_UP_WINDOW: Final = timedelta(minutes=5)
CONVERGENCE_INTERVAL: Final = timedelta(minutes=1)
CONVERGENCE_TIMEOUT: Final = timedelta(minutes=6)
# What one call may take.
RPC_TIMEOUT: Final = timedelta(seconds=2)
# What a whole operation of several such calls may take, retries included.
CALL_TIMEOUT: Final = timedelta(seconds=5)
OUR_PAUSE_NOTE: Final = "Disabled in the scheduler"

# The statuses that say "not now" rather than "not so" (https://grpc.io/docs/guides/status-codes/).
_TRANSIENT: Final = frozenset(
    {
        RPCStatusCode.UNAVAILABLE,
        RPCStatusCode.DEADLINE_EXCEEDED,
        RPCStatusCode.RESOURCE_EXHAUSTED,
        RPCStatusCode.CANCELLED,
        RPCStatusCode.ABORTED,
        RPCStatusCode.UNKNOWN,
        RPCStatusCode.INTERNAL,
    }
)


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

    @property
    def id(self) -> str:
        """The mirror's id in Temporal."""
        return names.mirror_id(install_id=self.install_id, schedule_id=self.schedule_id)


def read_profile() -> dict[str, Any]:
    """The connection settings from the SDK's own environment configuration.

    Raises ValueError with one line where the profile cannot be read.
    """
    file = os.environ.get("TEMPORAL_CONFIG_FILE")
    if file and not Path(file).is_file():
        raise ValueError("TEMPORAL_CONFIG_FILE names no file")
    if (tls := os.environ.get("TEMPORAL_TLS", "")).lower() not in {"", "true", "false", "1", "0"}:
        raise ValueError(f"TEMPORAL_TLS must be true or false, not {tls[:20]!r}")
    try:
        profile: dict[str, Any] = dict(ClientConfig.load_client_connect_config())
    except Exception as error:  # noqa: BLE001 - the SDK raises whatever its parser raised
        # The values may hold an API key, so only the kind is repeated.
        raise ValueError(
            f"TEMPORAL_PROFILE, TEMPORAL_CONFIG_FILE or a TEMPORAL_* variable cannot be read ({type(error).__name__})"
        ) from None
    profile.setdefault("target_host", DEFAULT_ADDRESS)
    if not _is_address(str(profile["target_host"])):
        raise ValueError("TEMPORAL_ADDRESS (or the profile's address) must be host:port")
    profile.setdefault("namespace", "default")
    return profile


def _is_address(text: str) -> bool:
    found = re.fullmatch(r"(?:https?://)?(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5})/?", text)
    return found is not None and 0 < int(found[1]) <= 65_535


def address() -> str:
    """Where Temporal is expected, for messages."""
    return str(read_profile()["target_host"])


def build_schedule(state: MirrorState) -> Schedule:
    """The Temporal Schedule that stands for a row. Pure.

    Never carries cron text or a zone for the engine to interpret: it reads some of both in ways of its own. The
    calendars are in UTC, and what they stand for is a comment for operators. Overlap is allowed here, because it is
    decided at the claim, where it leaves a row.
    """
    return Schedule(
        action=ScheduleActionStartWorkflow(
            names.RUN_SCHEDULE,
            RunRequest(str(state.tenant_id), str(state.install_id), str(state.schedule_id)),
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
        ]
    )


def put_mirror(state: MirrorState, *, exists: bool) -> None:
    """Make the mirror show ``state``, whatever it showed before. A repeat changes nothing.

    ``exists`` is a guess that saves a call. Raises DependencyUnavailable or MirrorRefused.
    """
    _run(lambda client: _put_mirror(client, state, exists=exists))


def remove_mirror(*, install_id: UUID, schedule_id: UUID) -> None:
    """Delete the mirror; one that is gone already is fine. Raises DependencyUnavailable."""
    mirror = names.mirror_id(install_id=install_id, schedule_id=schedule_id)
    _run(lambda client: _remove_schedule(client, mirror))


def describe_mirror(*, install_id: UUID, schedule_id: UUID) -> ScheduleDescription | None:
    """What Temporal holds for a schedule, or None. Raises DependencyUnavailable."""
    mirror = names.mirror_id(install_id=install_id, schedule_id=schedule_id)
    return _run(lambda client: _describe(client, mirror))


def start_run(request: RunRequest, *, extension_id: UUID) -> bool:
    """Start the workflow of a run that was asked for by hand; returns False where it was started before.

    Raises DependencyUnavailable.
    """
    return _run(lambda client: _start_run(client, request, extension_id))


def workflow_is_open(*, workflow_id: str, run_id: str | None) -> bool:
    """Whether the workflow behind a run still works on it. Raises DependencyUnavailable."""
    return _run(lambda client: _workflow_is_open(client, workflow_id, run_id))


def workflow_url(workflow_id: str) -> str:
    """Where Temporal's UI shows a workflow, or an empty text where no UI is configured."""
    if not workflow_id or not settings.TEMPORAL_UI_URL:
        return ""
    namespace = read_profile()["namespace"]
    return f"{settings.TEMPORAL_UI_URL.rstrip('/')}/namespaces/{namespace}/workflows/{quote(workflow_id, safe='')}"


def was_used() -> bool:
    """Whether this process has talked to Temporal; such a one may abort while the interpreter tears down."""
    return _bridge.is_running


def check_health() -> None:
    """Return where Temporal answers. Raises DependencyUnavailable."""
    _run(lambda client: client.service_client.check_health(timeout=RPC_TIMEOUT))


def install_convergence() -> None:
    """Make sure that the search attributes and the system schedule exist. Raises DependencyUnavailable."""
    _run(_install_convergence, timeout=timedelta(seconds=15))


async def _put_mirror(client: Client, state: MirrorState, *, exists: bool) -> None:
    await _ensure_search_attributes(client)
    schedule, attributes = build_schedule(state), mirror_search_attributes(state)

    def keep_hold(update: ScheduleUpdateInput) -> ScheduleUpdate:
        # A pause that is not ours is an operator's hold: it outlives what the row says until the operator lifts it.
        held = update.description.schedule.state
        if held.paused and held.note != OUR_PAUSE_NOTE:
            schedule.state = ScheduleState(paused=True, note=held.note)
        return ScheduleUpdate(schedule=schedule, search_attributes=attributes)

    if not exists:
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
            return
    try:
        await client.get_schedule_handle(state.id).update(keep_hold, rpc_timeout=RPC_TIMEOUT)
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
        try:
            await client.create_schedule(state.id, schedule, search_attributes=attributes, rpc_timeout=RPC_TIMEOUT)
        except ScheduleAlreadyRunningError as conflict:
            raise DependencyUnavailable("somebody else made the mirror at the same moment") from conflict


async def _remove_schedule(client: Client, schedule_id: str) -> None:
    try:
        await client.get_schedule_handle(schedule_id).delete(rpc_timeout=RPC_TIMEOUT)
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise


async def _describe(client: Client, schedule_id: str) -> ScheduleDescription | None:
    try:
        return await client.get_schedule_handle(schedule_id).describe(rpc_timeout=RPC_TIMEOUT)
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
        return None


async def _start_run(client: Client, request: RunRequest, extension_id: UUID) -> bool:
    await _ensure_search_attributes(client)
    try:
        await client.start_workflow(
            names.RUN_SCHEDULE,
            request,
            id=names.manual_workflow_id(
                install_id=request.install_id,
                schedule_id=request.schedule_id,
                invocation_id=request.invocation_id,
            ),
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


async def _workflow_is_open(client: Client, workflow_id: str, run_id: str | None) -> bool:
    handle = client.get_workflow_handle(workflow_id, run_id=run_id)
    try:
        description = await handle.describe(rpc_timeout=RPC_TIMEOUT)
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
        return False
    return description.status is WorkflowExecutionStatus.RUNNING


async def _install_convergence(client: Client) -> None:
    await _ensure_search_attributes(client)
    system_id = names.convergence_schedule_id(task_queue=settings.TEMPORAL_TASK_QUEUE)
    schedule = Schedule(
        action=ScheduleActionStartWorkflow(
            names.CONVERGE,
            id=f"{system_id}-run",
            task_queue=settings.TEMPORAL_TASK_QUEUE,
            # A pass that nobody works on any more must not keep the next ones out.
            execution_timeout=CONVERGENCE_TIMEOUT,
        ),
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=CONVERGENCE_INTERVAL)]),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=timedelta(seconds=30)),
    )
    try:
        await client.create_schedule(system_id, schedule, rpc_timeout=RPC_TIMEOUT)
    except ScheduleAlreadyRunningError:

        def keep_pause(update: ScheduleUpdateInput) -> ScheduleUpdate:
            schedule.state = update.description.schedule.state
            return ScheduleUpdate(schedule=schedule)

        await client.get_schedule_handle(system_id).update(keep_pause, rpc_timeout=RPC_TIMEOUT)


async def _ensure_search_attributes(client: Client) -> None:
    """Register our search attributes in the namespace, once for each process."""
    if _bridge.search_attributes_known:
        return
    try:
        known = await client.operator_service.list_search_attributes(
            ListSearchAttributesRequest(namespace=client.namespace), timeout=RPC_TIMEOUT
        )
    except RPCError as error:
        if error.status not in {RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNIMPLEMENTED}:
            raise
        # A managed service does not let us look, so they have to be registered beforehand.
        _bridge.search_attributes_known = True
        return
    missing = {
        key.name: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
        for key in names.SEARCH_ATTRIBUTES
        if key.name not in known.custom_attributes
    }
    if missing:
        try:
            await client.operator_service.add_search_attributes(
                AddSearchAttributesRequest(namespace=client.namespace, search_attributes=missing),
                timeout=RPC_TIMEOUT,
            )
        except RPCError as error:
            if error.status != RPCStatusCode.ALREADY_EXISTS:  # another process was quicker
                raise
    _bridge.search_attributes_known = True


def _ranges(values: tuple[int, ...]) -> list[ScheduleRange]:
    """The fewest inclusive runs of consecutive values: they are stored and walked by the engine."""
    runs: list[tuple[int, int]] = []
    for value in values:
        if runs and runs[-1][1] == value - 1:
            runs[-1] = (runs[-1][0], value)
        else:
            runs.append((value, value))
    return [ScheduleRange(start=first, end=last) for first, last in runs]


class _Bridge:
    """The event loop thread of this process and its client.

    Both are made on first use and anew after a fork, which neither survives.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process_id = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: Client | None = None
        self.search_attributes_known = False

    @property
    def is_running(self) -> bool:
        return self._loop is not None and self._process_id == os.getpid()

    def run(self, call: Callable[[Client], Awaitable[T]], *, timeout: timedelta) -> T:
        async def connected_call() -> T:
            return await call(await self._connect())

        coroutine: Coroutine[Any, Any, T] = connected_call()
        future = asyncio.run_coroutine_threadsafe(coroutine, self._running_loop())
        try:
            return future.result(timeout.total_seconds())
        except FutureTimeoutError:
            future.cancel()
            raise

    def forget_search_attributes(self) -> None:
        self.search_attributes_known = False

    async def _connect(self) -> Client:
        if self._client is None:
            profile = read_profile()
            self._client = await Client.connect(**profile, lazy=True)
        return self._client

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._process_id != os.getpid():
                self._loop, self._client, self._process_id = (
                    asyncio.new_event_loop(),
                    None,
                    os.getpid(),
                )
                self.search_attributes_known = False
                threading.Thread(target=self._loop.run_forever, name="temporal-gateway", daemon=True).start()
            return self._loop


_bridge = _Bridge()


def _run(call: Callable[[Client], Awaitable[T]], *, timeout: timedelta = CALL_TIMEOUT) -> T:
    """Run a call on the loop thread and translate what it raises."""
    try:
        return _bridge.run(call, timeout=timeout)
    except RPCError as error:
        if error.status in _TRANSIENT:
            raise DependencyUnavailable(f"Temporal does not answer ({error.status.name})") from error
        # The namespace may be a new one that does not know our attributes yet: the next call registers them.
        _bridge.forget_search_attributes()
        raise MirrorRefused(f"Temporal refused: {error.message}"[:500]) from error
    except (FutureTimeoutError, RuntimeError) as error:
        # An unreachable server is a plain RuntimeError of the SDK.
        raise DependencyUnavailable(f"Temporal at {address()} does not answer") from error
