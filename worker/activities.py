"""The activities. Each reads or writes the database in a thread, in short units, and waits for the runner in between.

Nothing that the runner or the database says goes into an exception here: exceptions are stored in Temporal.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final, TypeVar
from uuid import UUID, uuid4

import httpx
import structlog
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, DatabaseError, InterfaceError, OperationalError, connection, connections
from django.db.backends.postgresql.base import DatabaseWrapper as PostgresConnection
from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from schedules import attempts, claims, comparison, delivery, installs, metrics, outage, retention, runner, sweep
from schedules.background import PushOutcome
from schedules.models import RunStatus, Trigger
from workflows import activities as names
from workflows.payloads import (
    AttemptRequest,
    AttemptResult,
    CloseRequest,
    ComparisonOutcome,
    ConvergenceOutcome,
    PurgeOutcome,
    RunOutcome,
)

T = TypeVar("T")

log = structlog.get_logger(__name__)

DATABASE_THREADS: Final = 12
# What an hour's purge spends on tenants whose deletion was interrupted.
DELETION_BUDGET_SECONDS: Final = 1200.0
# How often messages are looked for that nobody has said are there, e.g. those whose next attempt is due.
DELIVERY_SECONDS: Final = 10.0
HEARTBEAT_SECONDS: Final = 5.0
# A local activity keeps a workflow task open, which the engine gives up after ten seconds.
IN_HAND_AFTER_SECONDS: Final = 2.5
# The engine offers a call in hand for ten seconds.
ABANDON_AFTER_SECONDS: Final = 9.0
# How long an answer that is known is kept in memory while the database cannot take it. Past that the engine repeats
# the attempt under the same idempotency key, and the runner answers from memory.
RECORD_PATIENCE_SECONDS: Final = 30.0


class Activities:
    """The worker's activities with what they share: one HTTP client and a few database threads.

    The threads are left to the process's end: waiting for one that hangs would keep the process from ending.
    """

    def __init__(self, *, client: httpx.AsyncClient) -> None:
        self._client = client
        self._threads = ThreadPoolExecutor(DATABASE_THREADS, thread_name_prefix="database")
        # Of its own, so that a pass that is stuck takes no thread away from runs.
        self._convergence_thread = ThreadPoolExecutor(1, thread_name_prefix="convergence")
        self._comparison_thread = ThreadPoolExecutor(1, thread_name_prefix="comparison")
        self._retention_thread = ThreadPoolExecutor(1, thread_name_prefix="retention")
        self._delivery_thread = ThreadPoolExecutor(1, thread_name_prefix="notifications")
        self._may_have_messages = asyncio.Event()
        # How many runs this process works on at once, whichever kind of activity they are in.
        self._places = asyncio.Semaphore(settings.WORKER_MAX_CONCURRENT_RUNS)
        # Calls that outlived their local activity, by invocation id, until a regular one waits for them.
        self._in_hand: dict[str, asyncio.Task[AttemptResult]] = {}
        self._nothing_in_hand = asyncio.Event()
        self._nothing_in_hand.set()
        self.own_queue = f"{settings.TEMPORAL_TASK_QUEUE}:{uuid4()}"

    @activity.defn(name=names.BEGIN_RUN)
    async def begin_run(self, request: AttemptRequest) -> AttemptResult:
        """Make a run's first attempt; a call that takes long stays in this process's hands, for `finish_run`."""
        # Waiting for a free place counts as waiting in the engine's queue: nothing of the run has begun.
        await self._places.acquire()
        call = asyncio.create_task(self._attempt(request))
        call.add_done_callback(lambda _: self._places.release())
        try:
            await asyncio.wait({call}, timeout=IN_HAND_AFTER_SECONDS)
        except asyncio.CancelledError:
            await _stop(call)
            raise
        if call.done():
            return call.result()
        self._take_in_hand(request.invocation_id, call)
        return AttemptResult(in_hand_of=self.own_queue)

    @activity.defn(name=names.FINISH_RUN)
    async def finish_run(self, request: AttemptRequest) -> AttemptResult:
        """Wait for a call that this process has in hand."""
        call = self._in_hand.get(request.invocation_id)
        self._let_go(request.invocation_id)
        if call is None or call.cancelled():
            raise ApplicationError("This process does not have the call in hand", type="NotInHand")
        try:
            async with _heartbeats():
                return await asyncio.shield(call)
        except asyncio.CancelledError:
            await _stop(call)
            raise

    @activity.defn(name=names.RUN_ATTEMPT)
    async def run_attempt(self, request: AttemptRequest) -> RunOutcome:
        """Make an attempt, the first or a further one.

        Raises a retryable error with the pause that the schedule's policy wants, while the run is not over.
        """
        # From the first moment on: an attempt that waits for the database is alive too.
        async with _heartbeats(), self._places:
            result = await self._attempt(request)
        if result.retry_in_seconds is not None:
            raise ApplicationError(
                result.reason,
                type="AttemptFailed",
                next_retry_delay=timedelta(seconds=result.retry_in_seconds),
                category=ApplicationErrorCategory.BENIGN,
            )
        return RunOutcome(result.status, result.reason)

    async def hand_over(self, *, patience_seconds: float) -> None:
        """Wait until every call in hand has been asked for by `finish_run`, for a process that is about to leave."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._nothing_in_hand.wait(), patience_seconds)

    def _take_in_hand(self, invocation_id: str, call: asyncio.Task[AttemptResult]) -> None:
        self._in_hand[invocation_id] = call
        self._nothing_in_hand.clear()
        # Before the engine would give it to somebody else. Nobody asks, e.g., where the run is cancelled right now.
        asyncio.get_running_loop().call_later(ABANDON_AFTER_SECONDS, self._abandon, invocation_id, call)

    def _abandon(self, invocation_id: str, call: asyncio.Task[AttemptResult]) -> None:
        if self._in_hand.get(invocation_id) is call:
            call.cancel()
            self._let_go(invocation_id)

    def _let_go(self, invocation_id: str) -> None:
        self._in_hand.pop(invocation_id, None)
        if not self._in_hand:
            self._nothing_in_hand.set()

    async def _attempt(self, request: AttemptRequest) -> AttemptResult:
        """Take the run, call the runner once, record the answer."""
        info = activity.info()
        offered_at = info.current_attempt_scheduled_time
        metrics.QUEUE_WAIT.observe(max(0.0, (info.started_time - offered_at).total_seconds()))
        with metrics.RUNS_IN_FLIGHT.track_inprogress():
            claim = await self._claim(request)
            if claim.invocation is None:
                return AttemptResult(claim.status, claim.reason)
            started_at = datetime.now(UTC)
            answer = await runner.execute(self._client, runner.build_call(claim.invocation))
            verdict = await self._record(
                partial(
                    attempts.record_attempt,
                    claim=claim,
                    answer=answer,
                    started_at=started_at,
                    finished_at=datetime.now(UTC),
                )
            )
        if verdict.status != RunStatus.SUCCEEDED or claim.failures_before:
            self._may_have_messages.set()
        return AttemptResult(verdict.status, verdict.reason, verdict.retry_in_seconds)

    @activity.defn(name=names.CLOSE_RUN)
    async def close_run(self, request: CloseRequest) -> RunOutcome:
        """Give a run its terminal state."""
        is_slot = request.trigger == Trigger.SCHEDULE
        ended = await self._in_database(
            partial(
                attempts.close_run,
                tenant_id=UUID(request.tenant_id),
                run_id=UUID(request.invocation_id),
                status=RunStatus(request.status),
                reason=request.reason,
                slot_of=(UUID(request.install_id), UUID(request.schedule_id), datetime.fromisoformat(request.slot))
                if is_slot
                else None,
            )
        )
        self._may_have_messages.set()
        return RunOutcome(ended.status if ended else "", request.reason)

    @activity.defn(name=names.CONVERGE_UNSYNCED)
    async def converge_unsynced(self) -> ConvergenceOutcome:
        """One pass over everything that is unsynced."""
        async with _heartbeats():
            report = await self._in_database(sweep.converge_unsynced, threads=self._convergence_thread)
        outcome = ConvergenceOutcome(
            pushed=report.of(PushOutcome.SYNCED),
            removed=report.of(PushOutcome.REMOVED),
            started=report.of(PushOutcome.STARTED),
            failed=report.unsynced,
            settled=report.settled,
        )
        self._may_have_messages.set()
        if report.outcomes or report.settled:
            counts = {str(outcome): number for outcome, number in report.outcomes.items()}
            log.info("convergence.pass", unsynced=report.unsynced, settled=report.settled, **counts)
        return outcome

    @activity.defn(name=names.COMPARE_MIRRORS)
    async def compare_mirrors(self) -> ComparisonOutcome:
        """Compare every row with its mirror, and every mirror with the rows."""
        async with _heartbeats():
            found = await self._in_database(comparison.compare, threads=self._comparison_thread)
        log.info(
            "comparison.pass",
            compared=found.compared,
            repaired=found.repaired,
            held=found.held,
            refused=found.refused,
            **{f"drift_{kind}": number for kind, number in found.drift.items()},
        )
        return ComparisonOutcome(compared=found.compared, repaired=found.repaired, refused=bool(found.refused))

    @activity.defn(name=names.PURGE_RUNS)
    async def purge_runs(self) -> PurgeOutcome:
        """Delete the runs whose time is over."""
        async with _heartbeats():
            finish = partial(installs.finish_deletions, budget_seconds=DELETION_BUDGET_SECONDS)
            await self._in_database(finish, threads=self._retention_thread)
            deleted = await self._in_database(retention.purge, threads=self._retention_thread)
        if deleted:
            log.info("retention.pass", deleted=deleted)
        return PurgeOutcome(runs=deleted)

    async def deliver_notifications(self) -> None:
        """Deliver messages for as long as the process lives, beside the runs and never in their way."""
        while True:
            self._may_have_messages.clear()
            try:
                await self._in_database(delivery.deliver_due, threads=self._delivery_thread)
            except ApplicationError:
                pass  # the database is away; it has been said
            except Exception:
                log.exception("notification.pass_failed")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._may_have_messages.wait(), DELIVERY_SECONDS)

    async def _claim(self, request: AttemptRequest) -> claims.Claim:
        info = activity.info()
        return await self._in_database(
            partial(
                claims.claim,
                tenant_id=UUID(request.tenant_id),
                schedule_id=UUID(request.schedule_id),
                invocation_id=UUID(request.invocation_id),
                trigger=request.trigger,
                slot=datetime.fromisoformat(request.slot),
                workflow_id=info.workflow_id or "",
                workflow_run_id=info.workflow_run_id or "",
            )
        )

    async def _record(self, write: Callable[[], T]) -> T:
        """Write a known answer, patiently: asking the runner again is the dearer way to have it."""
        deadline = asyncio.get_running_loop().time() + RECORD_PATIENCE_SECONDS
        delay = 0.2
        while True:
            try:
                return await self._in_database(write)
            except ApplicationError:
                if asyncio.get_running_loop().time() + delay > deadline:
                    raise
            await asyncio.sleep(delay)
            delay = min(delay * 2, 5.0)

    async def _in_database(self, work: Callable[[], T], *, threads: ThreadPoolExecutor | None = None) -> T:
        """Run a unit of database work in a thread that holds a connection for just as long."""
        return await asyncio.get_running_loop().run_in_executor(threads or self._threads, _with_connection, work)


def use_connections_unchecked() -> None:
    """Take pooled connections without asking each time whether they still live.

    The question would be half of a run's round trips. Instead, work that meets a dead connection is done once more.
    """
    connections.settings[DEFAULT_DB_ALIAS]["CONN_HEALTH_CHECKS"] = False


def _with_connection(work: Callable[[], T]) -> T:
    try:
        return _on_a_live_connection(work)
    except (DatabaseError, InterfaceError) as error:
        # Its text can hold values of the row, and this exception is about to be stored in Temporal and logged there.
        kind = type(error).__name__
        log.warning(
            "worker.database_error",
            kind=kind,
            sqlstate=outage.sqlstate_of(error),
        )
        raise ApplicationError(f"The database did not take it ({kind})", type="DatabaseError") from None
    finally:
        connection.close()


def _on_a_live_connection(work: Callable[[], T]) -> T:
    """Do the work, and once more if the connection turns out dead, e.g. after a restart of the server.

    Work may be repeated even where the first one got through: claims and records are made for that.
    """
    try:
        return work()
    except (OperationalError, InterfaceError):
        if connection.connection is None or not connection.connection.closed:
            raise
    connection.close()
    # All of the pool's connections met the same fate; this replaces them.
    if isinstance(connection, PostgresConnection):
        connection.pool.check()
    return work()


async def _stop(call: asyncio.Task[AttemptResult]) -> None:
    """Abort a call and wait until it is."""
    call.cancel()
    await asyncio.wait({call})


@contextlib.asynccontextmanager
async def _heartbeats() -> AsyncIterator[None]:
    """Tell the engine that this attempt is alive, so that a dead one is noticed soon and a cancel gets through.

    Not at once: most attempts have ended by then, and a heartbeat costs the engine as much as a step of the workflow.
    """

    async def beat() -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            activity.heartbeat()

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()
