"""Recording what an attempt amounted to, and ending runs that no attempt can end.

The record is one statement that commits by itself. Only where something follows from the run's end, a first failure or
a recovery, is it part of a transaction with that.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from schedules import consequences, convergence, ledger, metrics, prepared
from schedules.claims import Claim
from schedules.models import UNFINISHED_STATUSES, RunStatus, ScheduleRun
from schedules.policies import SHORTEST_DELAY_SECONDS
from schedules.runner import Answer, AttemptOutcome, Invocation


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from a recorded attempt: a terminal state, or a pause before the next attempt."""

    status: str
    reason: str = ""
    retry_in_seconds: float | None = None


def record_attempt(*, claim: Claim, answer: Answer, started_at: datetime, finished_at: datetime) -> Verdict:
    """Write what one attempt amounted to and decide what follows.

    A repeat, or the late answer of an attempt that another one has taken over from, writes nothing.
    """
    assert claim.invocation is not None
    # The start is the database's and the call's length this process's: two clocks are never held against each other.
    seconds = (finished_at - started_at).total_seconds()
    verdict = _judge(claim, answer, elapsed=claim.elapsed_seconds + seconds)
    is_over = verdict.retry_in_seconds is None
    has_consequences = is_over and consequences.may_follow(status=verdict.status, failures_before=claim.failures_before)
    invocation = claim.invocation
    with (
        consequences.ending(tenant_id=invocation.tenant_id, install_id=invocation.install_id)
        if has_consequences
        else contextlib.nullcontext()
    ):
        row = prepared.fetch_one(_RECORD, _values(claim, answer, verdict, started_at, finished_at))
        if row is not None and has_consequences:
            consequences.draw(ledger.Ended(tenant_id=invocation.tenant_id, **row))
    if row is None:
        return _verdict_of_unrecorded(invocation, verdict)
    if is_over and not has_consequences and row["failures_before"]:
        # Another run of the schedule, beside this one, has failed since the claim.
        with consequences.ending(tenant_id=invocation.tenant_id, install_id=invocation.install_id):
            consequences.draw(ledger.Ended(tenant_id=invocation.tenant_id, **row))
    _count(claim, answer, verdict, seconds)
    if is_over and (claim.may_have_line or row["has_line"]):
        convergence.start_next(tenant_id=invocation.tenant_id, schedule_id=row["schedule_id"])
    return verdict


def close_run(
    *,
    tenant_id: UUID,
    run_id: UUID,
    status: RunStatus,
    reason: str,
    slot_of: tuple[UUID, UUID, datetime] | None = None,
) -> ledger.Ended | None:
    """End a run that no attempt has ended, with everything that follows; returns the run as it ended.

    See `ledger.close_run`. A repeat changes nothing.
    """
    known = ScheduleRun.objects.filter(tenant_id=tenant_id, id=run_id).values_list("install_id", flat=True).first()
    with consequences.ending(tenant_id=tenant_id, install_id=known):
        ended = ledger.close_run(tenant_id=tenant_id, run_id=run_id, status=status, reason=reason, slot_of=slot_of)
        if ended is not None:
            consequences.draw(ended)
    if ended is not None:
        convergence.start_next(tenant_id=tenant_id, schedule_id=ended.schedule_id)
    return ended


def _values(
    claim: Claim, answer: Answer, verdict: Verdict, started_at: datetime, finished_at: datetime
) -> dict[str, Any]:
    assert claim.invocation is not None
    attempt = {
        "attempt": claim.invocation.attempt,
        "started_at": started_at.isoformat(),
        "finished_at": finished_at.isoformat(),
        "outcome": str(answer.outcome),
        "http_status": answer.http_status,
        "envelope_status": answer.envelope_status,
        "error": answer.error,
    }
    return {
        "tenant_id": claim.invocation.tenant_id,
        "run_id": claim.invocation.invocation_id,
        "attempt": claim.invocation.attempt,
        "status": verdict.status,
        "reason": verdict.reason,
        "terminal": verdict.retry_in_seconds is None,
        "log": json.dumps([attempt]),
        "already": json.dumps([{"attempt": claim.invocation.attempt}]),
        "failed_envelopes": int(answer.failed_envelope),
        "http_status": answer.envelope_status if answer.envelope_status is not None else answer.http_status,
        "error": answer.error,
        "response_bytes": answer.response_bytes,
        "response_text": answer.excerpt,
    }


def _judge(claim: Claim, answer: Answer, *, elapsed: float) -> Verdict:
    if answer.outcome is AttemptOutcome.SUCCEEDED:
        return Verdict(RunStatus.SUCCEEDED)
    # These texts enter Temporal: they name kinds and numbers, never what the other side said.
    reason = "the runner's time limit passed" if answer.outcome is AttemptOutcome.TIMED_OUT else _short_reason(answer)
    delay = None
    if answer.retryable:
        delay = claim.retry.delay_before_next(
            attempts_recorded=claim.attempts_recorded + 1,
            elapsed_seconds=elapsed,
            wanted_seconds=answer.retry_after_seconds,
        )
    if delay is not None:
        return Verdict(RunStatus.RUNNING, f"{reason}; another attempt follows", retry_in_seconds=delay)
    if answer.retryable and claim.attempts_recorded + 1 < claim.retry.max_attempts:
        reason = f"{reason}; its time, which ends at the next slot or its deadline, left none for another attempt"
    status = RunStatus.TIMED_OUT if answer.outcome is AttemptOutcome.TIMED_OUT else RunStatus.FAILED
    return Verdict(status, reason)


def _short_reason(answer: Answer) -> str:
    if answer.envelope_status is not None:
        return f"the extension answered {answer.envelope_status}"
    if answer.http_status is not None and answer.http_status != 200:
        return f"the runner answered HTTP {answer.http_status}"
    return "the runner's answer was unusable" if answer.http_status is not None else "the runner was not reached"


def _count(claim: Claim, answer: Answer, verdict: Verdict, seconds: float) -> None:
    assert claim.invocation is not None
    metrics.ATTEMPTS.labels(outcome=answer.outcome).inc()
    metrics.ATTEMPT_DURATION.observe(seconds)
    if claim.attempts_recorded == 0:
        metrics.RUN_LATENESS.labels(trigger=claim.invocation.trigger).observe(max(0.0, claim.lateness_seconds))
    if verdict.retry_in_seconds is not None:
        metrics.RETRIES.inc()
        return
    metrics.RUNS.labels(status=verdict.status, trigger=claim.invocation.trigger).inc()
    metrics.RUN_DURATION.labels(status=verdict.status).observe(claim.elapsed_seconds + seconds)


def _verdict_of_unrecorded(invocation: Invocation, verdict: Verdict) -> Verdict:
    """What follows where the record wrote nothing: it was written before, or it is no longer this attempt's turn."""
    run = ScheduleRun.objects.filter(tenant_id=invocation.tenant_id, id=invocation.invocation_id).first()
    if run is None:
        return Verdict(RunStatus.CANCELLED, "the run was removed while it ran")
    if run.status not in UNFINISHED_STATUSES:
        return Verdict(run.status, run.reason)
    if any(entry["attempt"] == invocation.attempt for entry in run.attempt_log):
        return verdict
    return Verdict(RunStatus.RUNNING, "another attempt took over", retry_in_seconds=SHORTEST_DELAY_SECONDS)


_RECORD: Final = f"""
WITH {ledger.LOCK_SCHEDULE}, ended AS (
    UPDATE schedules_schedulerun
    SET status = %(status)s,
        reason = %(reason)s,
        attempt_log = attempt_log || %(log)s::jsonb,
        failed_envelopes = failed_envelopes + %(failed_envelopes)s,
        http_status = %(http_status)s,
        error = %(error)s,
        response_bytes = %(response_bytes)s,
        response_text = %(response_text)s,
        finished_at = CASE WHEN %(terminal)s THEN clock_timestamp() END
    FROM {ledger.FIRST}
    WHERE tenant_id = %(tenant_id)s AND id = %(run_id)s AND first.locked >= 0
      AND status = 'running' AND attempts = %(attempt)s AND NOT attempt_log @> %(already)s::jsonb
    RETURNING id, tenant_id, install_id, schedule_id, trigger, status, slot, reason, error, started_at, finished_at
), {ledger.FOLLOW_UP}"""  # noqa: S608 - all parts are constants
