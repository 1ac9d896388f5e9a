"""The workflow behind every run: one slot of a schedule, or one request by hand.

The first attempt is a local activity: most calls are short, and this is half the work for the engine. A call that takes
longer stays in the hands of the process that made it, and a regular activity with heartbeats waits for it there. Every
further attempt is a regular activity, so that retries are Temporal's and visible in its UI.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    CancelledError,
    TimeoutType,
)
from temporalio.exceptions import TimeoutError as EngineTimeoutError

from workflows import activities, names
from workflows.payloads import AttemptRequest, AttemptResult, CloseRequest, RunOutcome, RunRequest

# One attempt's call is limited by the platform's own setting, well below this. The engine's limit only ends an
# attempt whose worker hangs with a live heartbeat.
ATTEMPT_TIMEOUT = timedelta(minutes=15)
# A dead worker's attempt is taken over after this long. Short, because nobody else works on the run meanwhile; not
# shorter, because each waiting call sends a heartbeat in four fifths of it.
HEARTBEAT_TIMEOUT = timedelta(seconds=15)
# Well above the time after which a local attempt lets go of its call.
BEGIN_TIMEOUT = timedelta(minutes=1)
# The process that has the call in hand takes this up at once; one that does not is gone.
HAND_OVER_TIMEOUT = timedelta(seconds=10)
# After this the run is closed whatever its retries say.
RUN_TIMEOUT = timedelta(hours=24)
# The attempts' number and delays are the schedule's policy, read from the database by the activity, which says
# itself when to stop and how long to wait. This policy serves the crashes that the activity cannot answer for.
ATTEMPT_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=30),
)
ONCE = RetryPolicy(maximum_attempts=1)
CLOSE_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(minutes=1),
)
FAILED_STATUSES = frozenset({"failed", "timed_out"})


@workflow.defn(name=names.RUN_SCHEDULE)
class RunSchedule:
    """Runs the attempts of one run until it has a terminal state in the database, or has to wait in line."""

    @workflow.run
    async def run(self, request: RunRequest) -> RunOutcome:
        """Return the run's state; a run that failed or timed out fails the workflow, so operators see it."""
        attempt = _attempt_request(request)
        try:
            outcome = await _first_attempt(attempt) if request.begins_locally else None
            if outcome is None:
                outcome = await _attempts(attempt)
        except (ActivityError, asyncio.CancelledError) as error:
            outcome = await _close(attempt, error)
        if outcome.status in FAILED_STATUSES:
            raise ApplicationError(outcome.reason, type=outcome.status, non_retryable=True)
        return outcome


def _attempt_request(request: RunRequest) -> AttemptRequest:
    slot = datetime.fromisoformat(request.slot) if request.slot else _nominal_time()
    invocation_id = request.invocation_id or str(names.slot_invocation_id(schedule_id=request.schedule_id, slot=slot))
    return AttemptRequest(
        tenant_id=request.tenant_id,
        install_id=request.install_id,
        schedule_id=request.schedule_id,
        trigger=request.trigger,
        invocation_id=invocation_id,
        slot=_format(slot),
    )


def _nominal_time() -> datetime:
    # The nominal time is whole seconds; the engine's attribute can carry a fraction.
    scheduled_at = workflow.info().typed_search_attributes.get(names.SCHEDULED_START_TIME)
    return (scheduled_at or workflow.info().start_time).astimezone(UTC).replace(microsecond=0)


async def _first_attempt(attempt: AttemptRequest) -> RunOutcome | None:
    """Make the first attempt, and wait before the next; None where there is a next one, or nobody knows."""
    try:
        result: AttemptResult = await workflow.execute_local_activity(
            activities.BEGIN_RUN,
            attempt,
            result_type=AttemptResult,
            start_to_close_timeout=BEGIN_TIMEOUT,
            retry_policy=ONCE,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )
        if result.in_hand_of:
            result = await workflow.execute_activity(
                activities.FINISH_RUN,
                attempt,
                task_queue=result.in_hand_of,
                result_type=AttemptResult,
                schedule_to_start_timeout=HAND_OVER_TIMEOUT,
                start_to_close_timeout=ATTEMPT_TIMEOUT,
                heartbeat_timeout=HEARTBEAT_TIMEOUT,
                retry_policy=ONCE,
                cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            )
    except ActivityError as error:
        if isinstance(error.cause, CancelledError) or workflow.cancellation_reason() is not None:
            raise
        # The process died, or could not reach the database. A regular attempt takes the run over as it stands.
        return None
    if result.retry_in_seconds is None:
        return RunOutcome(result.status, result.reason)
    await workflow.sleep(timedelta(seconds=result.retry_in_seconds))
    return None


async def _attempts(attempt: AttemptRequest) -> RunOutcome:
    outcome: RunOutcome = await workflow.execute_activity(
        activities.RUN_ATTEMPT,
        attempt,
        result_type=RunOutcome,
        start_to_close_timeout=ATTEMPT_TIMEOUT,
        heartbeat_timeout=HEARTBEAT_TIMEOUT,
        schedule_to_close_timeout=RUN_TIMEOUT,
        retry_policy=ATTEMPT_RETRY,
        cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    )
    return outcome


async def _close(attempt: AttemptRequest, error: ActivityError | asyncio.CancelledError) -> RunOutcome:
    """Record the end of a run whose attempt could not record it: cancelled, out of time, or given up by the engine."""
    cause = error.cause if isinstance(error, ActivityError) else error
    # An attempt that was about to fail when the cancel came in ends as failed, and is not repeated: it is the cancel
    # that ended the run.
    if isinstance(cause, CancelledError | asyncio.CancelledError) or workflow.cancellation_reason() is not None:
        status, reason = "cancelled", "cancelled while it ran"
    elif isinstance(cause, EngineTimeoutError) and cause.type == TimeoutType.SCHEDULE_TO_CLOSE:
        status, reason = "timed_out", "no attempt ended within the run's time limit"
    else:
        status, reason = "failed", "the attempt ended without an answer"
    closed: RunOutcome = await workflow.execute_activity(
        activities.CLOSE_RUN,
        CloseRequest(
            tenant_id=attempt.tenant_id,
            schedule_id=attempt.schedule_id,
            invocation_id=attempt.invocation_id,
            status=status,
            reason=reason,
            install_id=attempt.install_id,
            trigger=attempt.trigger,
            slot=attempt.slot,
        ),
        result_type=RunOutcome,
        start_to_close_timeout=timedelta(seconds=30),
        retry_policy=CLOSE_RETRY,
    )
    return closed


def _format(slot: datetime) -> str:
    return slot.strftime("%Y-%m-%dT%H:%M:%SZ")
