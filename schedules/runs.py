"""Every write of runs: claim, record, close, and requests by hand.

The hot path is two statements for a run that succeeds: `claim` reads the snapshot and takes the slot in one,
`record_attempt` writes the attempt and the schedule's last-run members in the other. Each commits by itself, so no
transaction and no lock lives while the runner works.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.db.models.functions import Now

from schedules import audit, convergence, cron, ledger, limits, metrics, payloads, queries, services
from schedules.errors import Conflict, InstallDisabled, InvalidFields
from schedules.models import (
    UNFINISHED_STATUSES,
    RunStatus,
    ScheduleRun,
    Trigger,
)
from schedules.runner import Answer, AttemptOutcome, Invocation
from workflows import names

# A slot that reaches its claim later than this is recorded as missed instead of run.
LATENESS_LIMIT: Final = timedelta(minutes=5)
# However soon the other side wants to be called again: "retry-after: 0" must not become a hot loop.
SHORTEST_DELAY_SECONDS: Final = 1.0
MAX_LOST_ATTEMPTS: Final = 10
# About 30 MB; beyond it, what a process knows of schedules is forgotten and learnt again.
MAX_KNOWN_GRIDS: Final = 100_000
_IN_FLIGHT_CONSTRAINT: Final = "a_schedule_has_one_run_in_flight"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How a run's failed attempts are repeated. Times in seconds."""

    max_attempts: int = 3
    first_delay_seconds: float = 10.0
    factor: float = 2.0
    longest_delay_seconds: float = 300.0
    deadline_seconds: float = 600.0

    def delay_before_next(
        self,
        *,
        attempts_recorded: int,
        elapsed_seconds: float,
        wanted_seconds: float | None,
    ) -> float | None:
        """Seconds until the next attempt, or None where this one was the last.

        ``wanted_seconds`` is what the other side asked for; it takes the place of our own delay, in full or, beyond the
        deadline, not at all: coming back early would be refused again.
        """
        if attempts_recorded >= self.max_attempts:
            return None
        backoff = self.first_delay_seconds * self.factor ** (attempts_recorded - 1)
        delay = min(backoff, self.longest_delay_seconds)
        if wanted_seconds is not None:
            delay = max(wanted_seconds, SHORTEST_DELAY_SECONDS)
        return delay if elapsed_seconds + delay <= self.deadline_seconds else None


DEFAULT_RETRY_POLICY: Final = RetryPolicy()


@dataclass(frozen=True, slots=True)
class Claim:
    """What came of trying to take a run.

    ``invocation`` is set where the runner must be called now. Otherwise ``status`` is the run's terminal state, or
    empty where there is no run (the schedule is gone).
    """

    status: str
    reason: str = ""
    invocation: Invocation | None = None
    attempts_recorded: int = 0
    elapsed_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from a recorded attempt: a terminal state, or a pause before the next attempt."""

    status: str
    reason: str = ""
    retry_in_seconds: float | None = None


def claim(
    *,
    tenant_id: UUID,
    schedule_id: UUID,
    invocation_id: UUID,
    trigger: str,
    slot: datetime,
    workflow_id: str,
    workflow_run_id: str,
) -> Claim:
    """Take a run: create its row (or take over the row of an attempt that died) and read what to call.

    One statement, so endpoint, version, payload, config and secrets are of one moment. Whether the run may start is
    decided here, under the constraint that a schedule has one run in flight; where it may not, the row says why. A
    repeat for a finished run returns its state and changes nothing.

    A scheduled fire that is no slot of the schedule leaves no row: its mirror was outdated, or edited by hand.
    """
    grid = _grids.get(schedule_id)
    while True:
        row = _claim_on_grid(
            grid,
            {
                "tenant_id": tenant_id,
                "schedule_id": schedule_id,
                "invocation_id": invocation_id,
                "trigger": trigger,
                "slot": slot,
                "lateness_limit": LATENESS_LIMIT,
                "late_reason": f"it could only start more than {LATENESS_LIMIT.seconds // 60} minutes late",
                "workflow_id": workflow_id,
                "workflow_run_id": workflow_run_id,
                "overlaps": False,
            },
        )
        if row is None or row["id"] is not None or trigger != Trigger.SCHEDULE:
            break
        current = _Grid(row["cron"], row["timezone"])
        if grid == current:
            break
        # What we knew of the schedule is outdated, or nothing yet. Only its author can make this go round again.
        if len(_grids) >= MAX_KNOWN_GRIDS:
            _grids.clear()
        grid = _grids[schedule_id] = current
    if row is None or row["id"] is None:
        off_grid = row is not None and grid is not None and not grid.has(slot) and trigger == Trigger.SCHEDULE
        return _claim_of_missing(tenant_id=tenant_id, invocation_id=invocation_id, off_grid=off_grid)
    if row["status"] != RunStatus.RUNNING:
        return Claim(status=row["status"], reason=row["reason"])
    if row["attempts"] - row["attempts_recorded"] > MAX_LOST_ATTEMPTS:
        # Whatever it is about this run that takes attempts away, it must not keep the schedule from its next slots.
        reason = f"{MAX_LOST_ATTEMPTS} attempts ended without a trace"
        status = ledger.close_run(tenant_id=tenant_id, run_id=invocation_id, status=RunStatus.FAILED, reason=reason)
        return Claim(status=status, reason=reason)
    return Claim(
        status=row["status"],
        invocation=_invocation(row),
        attempts_recorded=row["attempts_recorded"],
        elapsed_seconds=float(row["elapsed_seconds"]),
    )


@dataclass(frozen=True, slots=True)
class _Grid:
    """When a schedule is due, as far as the row said when it was last looked at."""

    cron: str
    timezone: str

    def has(self, slot: datetime) -> bool:
        """Whether the schedule is due at that instant."""
        return cron.is_slot(cron.parse(self.cron), cron.parse_zone(self.timezone), slot)


# Whether a fire is a slot is computed before the claim, from what this process last saw of the schedule. The claim
# holds only if the row still says the same, so a stale entry costs one more statement and never a wrong run.
_grids: dict[UUID, _Grid] = {}


def _claim_on_grid(grid: _Grid | None, values: dict[str, Any]) -> dict[str, Any] | None:
    values |= {
        "known_cron": grid.cron if grid else "",
        "known_timezone": grid.timezone if grid else "",
        "on_grid": grid is not None and grid.has(values["slot"]),
    }
    try:
        return _fetch_one(_CLAIM, values)
    except IntegrityError as error:
        if _IN_FLIGHT_CONSTRAINT not in str(error):
            raise
        return _fetch_one(_CLAIM, values | {"overlaps": True})


def record_attempt(
    *,
    claim: Claim,
    answer: Answer,
    started_at: datetime,
    finished_at: datetime,
    policy: RetryPolicy = DEFAULT_RETRY_POLICY,
) -> Verdict:
    """Write what one attempt amounted to and decide what follows. One statement.

    A repeat, or the late answer of an attempt that another one has taken over from, writes nothing.
    """
    assert claim.invocation is not None
    # The start is the database's and the call's length this process's: two clocks are never held against each other.
    elapsed = claim.elapsed_seconds + (finished_at - started_at).total_seconds()
    verdict = _judge(claim, answer, elapsed=elapsed, policy=policy)
    status = answer.envelope_status if answer.envelope_status is not None else answer.http_status
    attempt = {
        "attempt": claim.invocation.attempt,
        "started_at": started_at.isoformat(),
        "finished_at": finished_at.isoformat(),
        "outcome": str(answer.outcome),
        "http_status": answer.http_status,
        "envelope_status": answer.envelope_status,
        "error": answer.error,
    }
    recorded = _fetch_one(
        _RECORD,
        {
            "tenant_id": claim.invocation.tenant_id,
            "invocation_id": claim.invocation.invocation_id,
            "attempt": claim.invocation.attempt,
            "status": verdict.status,
            "reason": verdict.reason,
            "terminal": verdict.retry_in_seconds is None,
            "log": json.dumps([attempt]),
            "already": json.dumps([{"attempt": claim.invocation.attempt}]),
            "failed_envelopes": int(answer.failed_envelope),
            "http_status": status,
            "error": answer.error,
            "response_bytes": answer.response_bytes,
            "schedule_id": claim.invocation.schedule_id,
        },
    )
    return verdict if recorded is not None else _verdict_of_unrecorded(claim.invocation, verdict)


def request_run_now(
    *,
    tenant_id: UUID,
    install_id: UUID,
    schedule_id: UUID,
    actor: audit.Actor,
    idempotency_key: str | None = None,
    payload_override: Any = None,
) -> ScheduleRun:
    """Ask for a run of the schedule now; returns the queued run.

    The same ``idempotency_key`` gives the same run back, whatever became of it. Allowed on a disabled schedule,
    refused on a disabled install or without an endpoint. Raises NotFound, InstallDisabled, Conflict, InvalidFields,
    RateLimited.
    """
    if problem := payloads.problem_with_payload(payload_override):
        raise InvalidFields.from_fields({"payload": problem})
    run_id = names.request_invocation_id(schedule_id=schedule_id, request_key=idempotency_key or str(uuid4()))
    with transaction.atomic():
        install = services.lock_install(tenant_id=tenant_id, install_id=install_id)
        schedule = queries.find_schedule(tenant_id=tenant_id, install_id=install_id, schedule_id=schedule_id)
        existing = ScheduleRun.objects.filter(tenant_id=tenant_id, id=run_id).first()
        if existing is not None:
            return existing
        if not install.is_enabled:
            raise InstallDisabled("The extension is disabled, enable it before running its schedules")
        if schedule.endpoint_id is None:
            raise Conflict("The schedule has no endpoint any more, choose one before running it")
        limits.count_call(
            tenant_id=tenant_id,
            subject="run_now",
            limit=settings.SCHEDULER_RUN_NOW_PER_MINUTE,
        )
        run = ScheduleRun.objects.create(
            id=run_id,
            tenant_id=tenant_id,
            install_id=install_id,
            schedule_id=schedule_id,
            trigger=Trigger.RUN_NOW,
            slot=Now(),
            status=RunStatus.QUEUED,
            payload=payload_override,
            payload_given=payload_override is not None,
            actor=actor.name[: audit.MAX_ACTOR_LENGTH],
        )
        audit.record(
            actor=actor,
            action="run.requested",
            subject_type="schedule",
            subject_id=schedule_id,
            tenant_id=tenant_id,
            after={
                "run_id": str(run_id),
                "payload_override": payload_override is not None,
            },
        )
        transaction.on_commit(lambda: convergence.request_start(tenant_id=tenant_id, run_id=run_id))
    run.refresh_from_db()
    return run


def _invocation(row: dict[str, Any]) -> Invocation:
    return Invocation(
        invocation_id=row["id"],
        tenant_id=row["tenant_id"],
        registry_id=row["extension_id"],
        install_id=row["install_id"],
        version_id=row["version_id"],
        content_hash=row["content_hash"],
        config=row["config"],
        granted_caps=row["granted_caps"],
        secret_envelope=row["secret_envelope"],
        method=row["endpoint_method"],
        path=row["endpoint_path"],
        payload=row["payload"],
        trigger=row["trigger"],
        schedule_id=row["schedule_id"],
        scheduled_for=row["slot"],
        attempt=row["attempts"],
        failed_envelopes=row["failed_envelopes"],
        timeout_ms=settings.EXT_GATEWAY_TIMEOUT_MS,
    )


def _judge(claim: Claim, answer: Answer, *, elapsed: float, policy: RetryPolicy) -> Verdict:
    if answer.outcome is AttemptOutcome.SUCCEEDED:
        return Verdict(RunStatus.SUCCEEDED)
    # These texts enter Temporal: they name kinds and numbers, never what the other side said.
    reason = "the runner's time limit passed" if answer.outcome is AttemptOutcome.TIMED_OUT else _short_reason(answer)
    delay = None
    if answer.retryable:
        delay = policy.delay_before_next(
            attempts_recorded=claim.attempts_recorded + 1,
            elapsed_seconds=elapsed,
            wanted_seconds=answer.retry_after_seconds,
        )
    if delay is not None:
        return Verdict(RunStatus.RUNNING, reason, retry_in_seconds=delay)
    status = RunStatus.TIMED_OUT if answer.outcome is AttemptOutcome.TIMED_OUT else RunStatus.FAILED
    return Verdict(status, reason)


def _short_reason(answer: Answer) -> str:
    if answer.envelope_status is not None:
        return f"the extension answered {answer.envelope_status}"
    if answer.http_status is not None and answer.http_status != 200:
        return f"the runner answered HTTP {answer.http_status}"
    return "the runner's answer was unusable" if answer.http_status is not None else "the runner was not reached"


def _claim_of_missing(*, tenant_id: UUID, invocation_id: UUID, off_grid: bool) -> Claim:
    """The claim returned no row: the run has ended already, its schedule is gone, or the fire was no slot."""
    reason = "the schedule was deleted meanwhile"
    run = ScheduleRun.objects.filter(tenant_id=tenant_id, id=invocation_id).first()
    if run is None and off_grid:
        metrics.OFF_GRID_FIRES.inc()
        return Claim(status="", reason="the schedule is not due at this time")
    if run is None:
        return Claim(status="", reason=reason)
    if run.status in UNFINISHED_STATUSES:
        status = ledger.close_run(tenant_id=tenant_id, run_id=run.id, status=RunStatus.CANCELLED, reason=reason)
        return Claim(status=status, reason=reason)
    return Claim(status=run.status, reason=run.reason)


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


def _fetch_one(statement: str, values: dict[str, Any]) -> dict[str, Any] | None:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        row = cursor.fetchone()
        if row is None:
            return None
        columns = [column.name for column in cursor.description]
        result = dict(zip(columns, row, strict=True))
    # Django turns off psycopg's own decoding of jsonb.
    for name in _JSON_COLUMNS & result.keys():
        if isinstance(result[name], str):
            result[name] = json.loads(result[name])
    return result


_JSON_COLUMNS: Final = {"config", "granted_caps", "secret_envelope", "payload"}

# clock_timestamp() is the one clock of all decisions about time: the database's, whatever the machines' say.
_CLAIM: Final = """
WITH source AS (
    SELECT s.id, s.tenant_id, s.install_id, s.endpoint_method, s.endpoint_path, s.payload, s.revision,
           i.extension_id, i.version_id, i.config, i.granted_caps, i.secret_envelope,
           v.version AS version_name, v.content_hash, s.cron, s.timezone,
           CASE
               WHEN NOT i.is_enabled THEN 'the extension was disabled'
               WHEN s.endpoint_id IS NULL THEN 'the schedule had no endpoint'
               WHEN %(trigger)s = 'schedule' AND NOT s.enabled THEN 'the schedule was disabled'
               ELSE ''
           END AS disabled_reason,
           %(trigger)s = 'schedule' AND clock_timestamp() > %(slot)s + %(lateness_limit)s AS is_late
    FROM schedules_schedule s
    JOIN schedules_extensioninstall i ON i.tenant_id = s.tenant_id AND i.id = s.install_id
    JOIN schedules_extensionversion v ON v.id = i.version_id
    WHERE s.tenant_id = %(tenant_id)s AND s.id = %(schedule_id)s
    -- A deletion in progress ends first, and then there is nothing to claim: no run is left to a tenant that is gone.
    FOR KEY SHARE OF s
), decision AS (
    SELECT source.*,
           CASE
               WHEN disabled_reason <> '' THEN 'skipped_disabled'
               WHEN is_late THEN 'missed'
               WHEN %(overlaps)s THEN 'skipped_overlap'
               ELSE 'running'
           END AS status,
           CASE
               WHEN disabled_reason <> '' THEN disabled_reason
               WHEN is_late THEN %(late_reason)s
               WHEN %(overlaps)s THEN 'another run of the schedule was in flight'
               ELSE ''
           END AS reason
    FROM source
), claimed AS (
    INSERT INTO schedules_schedulerun AS run (
        id, tenant_id, install_id, schedule_id, trigger, slot, status, reason, attempts,
        version_id, version_name, content_hash, endpoint_method, endpoint_path, schedule_revision, payload,
        actor, error, workflow_id, workflow_run_id, started_at, finished_at
    )
    SELECT %(invocation_id)s, tenant_id, install_id, id, %(trigger)s, %(slot)s, status, reason,
           CASE WHEN status = 'running' THEN 1 ELSE 0 END,
           version_id, version_name, content_hash, endpoint_method, endpoint_path, revision, payload,
           '', '', %(workflow_id)s, %(workflow_run_id)s,
           CASE WHEN status = 'running' THEN clock_timestamp() END,
           CASE WHEN status <> 'running' THEN clock_timestamp() END
    FROM decision
    -- A run that exists goes on whatever became of the grid since.
    WHERE %(trigger)s <> 'schedule'
       OR (%(on_grid)s AND cron = %(known_cron)s AND timezone = %(known_timezone)s)
       OR EXISTS (SELECT 1 FROM schedules_schedulerun existing
                  WHERE existing.tenant_id = %(tenant_id)s AND existing.id = %(invocation_id)s)
    ON CONFLICT (id) DO UPDATE SET
        -- A queued run starts now, by today's rules; one whose attempt died goes on as it began.
        status = CASE WHEN run.status = 'running' THEN run.status ELSE EXCLUDED.status END,
        reason = CASE WHEN run.status = 'running' THEN run.reason ELSE EXCLUDED.reason END,
        attempts = run.attempts + CASE WHEN run.status = 'running' THEN 1 ELSE EXCLUDED.attempts END,
        version_id = CASE WHEN run.status = 'running' THEN run.version_id ELSE EXCLUDED.version_id END,
        version_name = CASE WHEN run.status = 'running' THEN run.version_name ELSE EXCLUDED.version_name END,
        content_hash = CASE WHEN run.status = 'running' THEN run.content_hash ELSE EXCLUDED.content_hash END,
        endpoint_method = CASE WHEN run.status = 'running' THEN run.endpoint_method ELSE EXCLUDED.endpoint_method END,
        endpoint_path = CASE WHEN run.status = 'running' THEN run.endpoint_path ELSE EXCLUDED.endpoint_path END,
        schedule_revision =
            CASE WHEN run.status = 'running' THEN run.schedule_revision ELSE EXCLUDED.schedule_revision END,
        payload = CASE WHEN run.status = 'running' OR run.payload_given THEN run.payload ELSE EXCLUDED.payload END,
        workflow_id = EXCLUDED.workflow_id,
        workflow_run_id = EXCLUDED.workflow_run_id,
        started_at = COALESCE(run.started_at, EXCLUDED.started_at),
        finished_at = CASE WHEN run.status = 'running' THEN NULL ELSE EXCLUDED.finished_at END
    WHERE run.status IN ('queued', 'running')
    RETURNING run.*, jsonb_array_length(run.attempt_log) AS attempts_recorded
)
SELECT claimed.id, claimed.tenant_id, claimed.install_id, claimed.schedule_id, claimed.trigger, claimed.slot,
       claimed.status, claimed.reason, claimed.attempts, claimed.attempts_recorded, claimed.failed_envelopes,
       claimed.version_id, claimed.content_hash, claimed.endpoint_method, claimed.endpoint_path, claimed.payload,
       EXTRACT(EPOCH FROM clock_timestamp() - claimed.started_at) AS elapsed_seconds,
       source.cron, source.timezone, source.extension_id, source.config, source.granted_caps, source.secret_envelope
FROM source LEFT JOIN claimed ON TRUE
"""

_RECORD: Final = """
WITH recorded AS (
    UPDATE schedules_schedulerun
    SET status = %(status)s,
        reason = %(reason)s,
        attempt_log = attempt_log || %(log)s::jsonb,
        failed_envelopes = failed_envelopes + %(failed_envelopes)s,
        http_status = %(http_status)s,
        error = %(error)s,
        response_bytes = %(response_bytes)s,
        finished_at = CASE WHEN %(terminal)s THEN clock_timestamp() END
    WHERE tenant_id = %(tenant_id)s AND id = %(invocation_id)s
      AND status = 'running' AND attempts = %(attempt)s AND NOT attempt_log @> %(already)s::jsonb
    RETURNING id, schedule_id, status, error, finished_at
), noted AS (
    UPDATE schedules_schedule AS s
    SET last_run_at = recorded.finished_at, last_run_status = recorded.status, last_error = recorded.error
    FROM recorded
    WHERE s.tenant_id = %(tenant_id)s AND s.id = %(schedule_id)s AND recorded.finished_at IS NOT NULL
)
SELECT id FROM recorded
"""
