"""Taking a run: whether it may start now, and what it calls.

One statement reads the schedule, its install and its version and inserts or takes over the run's row, so endpoint,
version, payload, config and secrets are of one moment. It commits by itself; nothing is held while the runner works.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from schedules import consequences, convergence, cron, ledger, metrics, prepared
from schedules.models import UNFINISHED_STATUSES, OverlapPolicy, RunStatus, Schedule, ScheduleRun, Trigger
from schedules.policies import LATENESS_LIMIT, RetryPolicy
from schedules.runner import Invocation

MAX_LOST_ATTEMPTS: Final = 10
# About 30 MB; beyond it, what a process knows of schedules is forgotten and learnt again.
MAX_KNOWN_GRIDS: Final = 100_000
SHORTEST_TIMEOUT_SECONDS: Final = 1.0
STOPPED: Final = "stopped by an operator: "
REPLACED_REASON: Final = "a newer run took its place"
_IN_FLIGHT_CONSTRAINT: Final = "a_schedule_has_one_run_in_flight"
_UNSETTLED: Final = "unsettled"


@dataclass(frozen=True, slots=True)
class Grid:
    """When a schedule is due, as far as its row said when it was last looked at."""

    cron: str
    timezone: str

    def has(self, slot: datetime) -> bool:
        """Whether the schedule is due at that instant."""
        return cron.is_slot(cron.parse(self.cron), cron.parse_zone(self.timezone), slot)

    def seconds_to_next(self, after: datetime) -> float:
        """From a moment to the next slot; without one, no time that matters."""
        following = cron.next_slot(cron.parse(self.cron), cron.parse_zone(self.timezone), after=after)
        return (following - after).total_seconds() if following else float("inf")


@dataclass(frozen=True, slots=True)
class Claim:
    """What came of trying to take a run.

    ``invocation`` is set where the runner must be called now. Otherwise ``status`` is the run's state: terminal, queued
    where it waits in line, running where another workflow works on it, or empty where there is no run.
    """

    status: str
    reason: str = ""
    invocation: Invocation | None = None
    attempts_recorded: int = 0
    elapsed_seconds: float = 0.0
    lateness_seconds: float = 0.0
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    deadline_seconds: float = 0.0
    failures_before: int = 0
    may_have_line: bool = False


# Whether a fire is a slot is computed before the claim, from what this process last saw of the schedule. The claim
# holds only if the row still says the same, so a stale entry costs one more statement and never a wrong run.
_grids: dict[UUID, Grid] = {}


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
    """Take a run: create its row, or take over the one that waits or whose attempt died, and read what to call.

    Whether the run may start is decided here, under the constraint that a schedule has one run in flight; where it may
    not, the row says why. A repeat for a finished run returns its state and changes nothing, and so does one for a run
    that another workflow works on.

    A scheduled fire leaves no row where it is no slot of the schedule (its mirror was outdated, or edited by hand) and
    where it belongs to a time at which the schedule was not enabled.
    """
    values = {
        "tenant_id": tenant_id,
        "schedule_id": schedule_id,
        "invocation_id": invocation_id,
        "trigger": trigger,
        "slot": slot,
        "lateness_limit": LATENESS_LIMIT,
        "workflow_id": workflow_id,
        "workflow_run_id": workflow_run_id,
        "stopped": STOPPED,
    }
    row = _take(values)
    if row is not None and row["id"] is None and row["decision"] == _UNSETTLED and row["is_owed"] and not row["is_off"]:
        _settle(tenant_id=tenant_id, schedule_id=schedule_id)
        row = _take(values)
    if row is None or row["id"] is None:
        return _claim_of_missing(row, values)
    if row["is_dangling"]:
        consequences.pause_dangling(tenant_id=tenant_id, install_id=row["install_id"], schedule_id=schedule_id)
    if row["status"] == RunStatus.QUEUED:
        return _wait_in_line(row)
    if row["status"] != RunStatus.RUNNING:
        metrics.CLAIMS_REFUSED.labels(status=row["status"]).inc()
        metrics.RUNS.labels(status=row["status"], trigger=row["trigger"]).inc()
        if row["waits"] or _may_have_line(row):
            # It had its turn, and the line goes on.
            convergence.start_next(tenant_id=tenant_id, schedule_id=schedule_id)
        return Claim(status=row["status"], reason=row["reason"])
    return _start(row)


def _start(row: dict[str, Any]) -> Claim:
    _supersede(row)
    if row["stop_reason"] is not None:
        # It began before the switch was thrown, and makes no further attempt.
        return _closed(row, RunStatus.CANCELLED, f"{STOPPED}{row['stop_reason']}")
    if not row["install_enabled"]:
        return _closed(row, RunStatus.CANCELLED, "the extension was disabled between two attempts")
    if row["cancel_requested_at"] is not None:
        return _closed(row, RunStatus.CANCELLED, "cancelled between two attempts")
    if row["attempts"] - row["attempts_recorded"] > MAX_LOST_ATTEMPTS:
        # Whatever it is about this run that takes attempts away, it must not keep the schedule from its next slots.
        return _closed(row, RunStatus.FAILED, f"{MAX_LOST_ATTEMPTS} attempts ended without a trace")
    elapsed = float(row["elapsed_seconds"])
    deadline = _deadline_seconds(row)
    if row["attempts_recorded"] and elapsed >= deadline:
        # E.g. because no worker was there when its pause was over. An attempt whose outcome nobody knows is repeated.
        return _closed(row, RunStatus.FAILED, "its deadline passed before another attempt could be made")
    return Claim(
        status=row["status"],
        invocation=_invocation(row, seconds_left=deadline - elapsed),
        attempts_recorded=row["attempts_recorded"],
        elapsed_seconds=elapsed,
        lateness_seconds=float(row["lateness_seconds"]),
        retry=_retry_policy(row, deadline),
        deadline_seconds=deadline,
        failures_before=row["consecutive_failures"],
        may_have_line=_may_have_line(row),
    )


def _closed(row: dict[str, Any], status: RunStatus, reason: str) -> Claim:
    with consequences.ending(tenant_id=row["tenant_id"], install_id=row["install_id"]):
        ended = ledger.close_run(tenant_id=row["tenant_id"], run_id=row["id"], status=status, reason=reason)
        if ended is not None:
            consequences.draw(ended)
    convergence.start_next(tenant_id=row["tenant_id"], schedule_id=row["schedule_id"])
    return Claim(status=ended.status if ended else "", reason=ended.reason if ended else "")


def _take(values: dict[str, Any]) -> dict[str, Any] | None:
    """Run the statement, with what is known of the schedule's slots brought up to date."""
    schedule_id, grid = values["schedule_id"], _grids.get(values["schedule_id"])
    while True:
        row = _claim_on_grid(grid, values)
        if row is None or row["id"] is not None or values["trigger"] != Trigger.SCHEDULE:
            return row
        current = Grid(row["cron"], row["timezone"])
        if grid == current:
            return row
        # What we knew of the schedule is outdated, or nothing yet. Only its author can make this go round again.
        if len(_grids) >= MAX_KNOWN_GRIDS:
            _grids.clear()
        grid = _grids[schedule_id] = current


def _claim_on_grid(grid: Grid | None, values: dict[str, Any]) -> dict[str, Any] | None:
    known = {
        "known_cron": grid.cron if grid else "",
        "known_timezone": grid.timezone if grid else "",
        "on_grid": grid is not None and grid.has(values["slot"]),
    }
    while True:
        try:
            return prepared.fetch_one(_CLAIM, values | known)
        except IntegrityError as error:
            # Another run of the schedule took its claim at this very moment; the next look sees it.
            if _IN_FLIGHT_CONSTRAINT not in str(error):
                raise


def _settle(*, tenant_id: UUID, schedule_id: UUID) -> None:
    """Let the catch-up policy decide about this slot together with all the others that nobody has claimed."""
    until = ledger.database_now()
    is_settled = False
    while not is_settled:
        with transaction.atomic():
            rows = Schedule.objects.select_for_update(no_key=True, of=("self",)).filter(
                tenant_id=tenant_id, id=schedule_id, enabled=True, install__is_enabled=True
            )
            schedules = list(rows.defer("payload"))
            ledger.settle(schedules, until=until)
        is_settled = all(schedule.accounted_until >= until for schedule in schedules)


def _wait_in_line(row: dict[str, Any]) -> Claim:
    """The run waits. Whatever its policy wants done about the others is done; it starts when its turn comes."""
    metrics.CLAIMS_REFUSED.labels(status=row["status"]).inc()
    _supersede(row)
    if _keeps_newest(row) and ledger.is_superseded(
        tenant_id=row["tenant_id"], schedule_id=row["schedule_id"], slot=row["slot"]
    ):
        return _closed(row, RunStatus.SUPERSEDED, ledger.SUPERSEDED_REASON)
    blocker_id = row["blocked_by"]
    is_regular = not row["catch_up"] and row["trigger"] != Trigger.BACKFILL
    if blocker_id is not None and row["overlap_policy"] == OverlapPolicy.CANCEL_RUNNING and is_regular:
        blocker = ScheduleRun.objects.filter(tenant_id=row["tenant_id"], id=blocker_id, catch_up=False).exclude(
            trigger=Trigger.BACKFILL
        )
        asked = blocker.filter(status=RunStatus.RUNNING, cancel_requested_at=None).update(
            cancel_requested_at=Now(), cancel_reason=REPLACED_REASON, blocked_by=row["id"]
        )
        if asked:
            convergence.request_cancel(tenant_id=row["tenant_id"], run_id=blocker_id)
    # Who ends a run looks for the next one once that has committed, and we look for its end once we are in the line.
    in_the_way = ScheduleRun.objects.filter(tenant_id=row["tenant_id"], id=blocker_id, status=RunStatus.RUNNING)
    if blocker_id is not None and not in_the_way.exists():
        convergence.start_next(tenant_id=row["tenant_id"], schedule_id=row["schedule_id"])
    return Claim(status=row["status"], reason=row["reason"])


def _supersede(row: dict[str, Any]) -> None:
    if _keeps_newest(row):
        ledger.supersede_waiting(
            tenant_id=row["tenant_id"], schedule_id=row["schedule_id"], by=row["id"], slot=row["slot"]
        )


def _keeps_newest(row: dict[str, Any]) -> bool:
    """Whether the run is one of those of which only the newest waits."""
    waits = row["overlap_policy"] in {OverlapPolicy.QUEUE, OverlapPolicy.CANCEL_RUNNING}
    return bool(waits and row["trigger"] == Trigger.SCHEDULE and not row["catch_up"])


def _may_have_line(row: dict[str, Any]) -> bool:
    """Whether it takes a second look, after the commit, to be sure that nobody waits for this run.

    At most those who make up for something wait for a run of a schedule that skips, and they are in no hurry: the
    record's own look, which can overlook one that joins at that very moment, is enough.
    """
    makes_wait = row["catch_up"] or row["trigger"] == Trigger.BACKFILL
    return bool(makes_wait or row["overlap_policy"] in {OverlapPolicy.QUEUE, OverlapPolicy.CANCEL_RUNNING})


def _retry_policy(row: dict[str, Any], deadline_seconds: float) -> RetryPolicy:
    return RetryPolicy(
        max_attempts=row["retry_max_attempts"],
        first_delay_seconds=row["retry_first_delay_seconds"],
        factor=row["retry_factor"],
        longest_delay_seconds=row["retry_longest_delay_seconds"],
        deadline_seconds=deadline_seconds,
    )


def _deadline_seconds(row: dict[str, Any]) -> float:
    """The run's total time: as its schedule says, and up to the next slot where two runs may not overlap."""
    deadline = float(row["run_deadline_seconds"])
    if not (row["exclusive"] and row["schedule_enabled"]):
        return deadline
    return min(deadline, Grid(row["cron"], row["timezone"]).seconds_to_next(row["started_at"]))


def _invocation(row: dict[str, Any], *, seconds_left: float) -> Invocation:
    timeout = int(settings.EXT_GATEWAY_TIMEOUT_MS) / 1000
    if row["attempt_timeout_seconds"] is not None:
        timeout = min(timeout, row["attempt_timeout_seconds"])
    if row["attempts_recorded"]:
        # A first attempt has its full time however late it begins; a repeat must not outlast the run.
        timeout = min(timeout, max(seconds_left, SHORTEST_TIMEOUT_SECONDS))
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
        timeout_ms=round(timeout * 1000),
    )


def _claim_of_missing(row: dict[str, Any] | None, values: dict[str, Any]) -> Claim:
    """The statement took nothing: the run is over or another's, its schedule is gone, or no slot was due."""
    run = ScheduleRun.objects.filter(tenant_id=values["tenant_id"], id=values["invocation_id"]).first()
    if run is None and row is None:
        return Claim(status="", reason="the schedule was deleted meanwhile")
    if run is None:
        assert row is not None
        if row["is_off"]:
            return Claim(status="", reason="the schedule was not enabled at this time")
        metrics.OFF_GRID_FIRES.inc()
        return Claim(status="", reason="the schedule is not due at this time")
    if run.status in UNFINISHED_STATUSES and row is None:
        ended = ledger.close_run(
            tenant_id=run.tenant_id,
            run_id=run.id,
            status=RunStatus.CANCELLED,
            reason="the schedule was deleted meanwhile",
        )
        return Claim(status=ended.status if ended else "", reason=ended.reason if ended else "")
    if run.status in UNFINISHED_STATUSES:
        return Claim(status=run.status, reason="another workflow works on this run")
    return Claim(status=run.status, reason=run.reason)


# clock_timestamp() is the one clock of all decisions about time: the database's, whatever the machines' say.
_CLAIM: Final = """
WITH source AS (
    SELECT s.id, s.tenant_id, s.install_id, s.endpoint_method, s.endpoint_path, s.payload, s.revision,
           s.cron, s.timezone,
           s.overlap_policy, s.catch_up_policy, s.next_slot_at,
           s.retry_max_attempts, s.retry_first_delay_seconds, s.retry_factor,
           s.retry_longest_delay_seconds, s.run_deadline_seconds, s.attempt_timeout_seconds, s.consecutive_failures,
           i.extension_id, i.version_id, i.config, i.granted_caps, i.secret_envelope,
           v.version AS version_name, v.content_hash,
           s.enabled AS schedule_enabled, e.id IS NULL AND s.enabled AS is_dangling,
           NOT i.is_enabled OR (%(trigger)s = 'schedule' AND NOT s.enabled) AS is_off,
           %(trigger)s <> 'schedule' OR %(slot)s > s.accounted_until AS is_owed,
           stop.reason AS stop_reason, i.is_enabled AS install_enabled,
           CASE
               WHEN stop.reason IS NOT NULL THEN %(stopped)s || stop.reason
               WHEN NOT i.is_enabled THEN 'the extension was disabled'
               WHEN %(trigger)s = 'schedule' AND NOT s.enabled THEN 'the schedule was disabled'
               WHEN e.id IS NULL THEN 'its endpoint does not exist in the installed version'
               ELSE ''
           END AS disabled_reason
    FROM schedules_schedule s
    JOIN schedules_extensioninstall i ON i.tenant_id = s.tenant_id AND i.id = s.install_id
    JOIN schedules_extensionversion v ON v.id = i.version_id
    LEFT JOIN schedules_apiendpoint e ON e.id = s.endpoint_id AND e.version_id = i.version_id
    LEFT JOIN LATERAL (
        SELECT k.reason FROM schedules_killswitch k
        WHERE k.scope = 'platform' OR (k.scope = 'tenant' AND k.target_id = s.tenant_id)
           OR (k.scope = 'extension' AND k.target_id = i.extension_id)
           -- A run in flight goes on with the version that it began with.
           OR (k.scope = 'version' AND k.target_id = COALESCE((
                   SELECT begun.version_id FROM schedules_schedulerun begun
                   WHERE begun.tenant_id = s.tenant_id AND begun.id = %(invocation_id)s AND begun.status = 'running'
               ), i.version_id))
        ORDER BY k.created_at LIMIT 1
    ) AS stop ON TRUE
    WHERE s.tenant_id = %(tenant_id)s AND s.id = %(schedule_id)s
    -- A deletion in progress ends first, and then there is nothing to claim: no run is left to a tenant that is gone.
    FOR KEY SHARE OF s
), existing AS (
    SELECT id, exclusive, waits, trigger = 'backfill' OR catch_up AS is_made_up
    FROM schedules_schedulerun
    WHERE tenant_id = %(tenant_id)s AND id = %(invocation_id)s
), blocker AS (
    SELECT id, trigger = 'backfill' OR catch_up AS is_made_up
    FROM schedules_schedulerun
    -- Runs that began while overlap was allowed count as well; backfilled ones that run beside others do not.
    WHERE tenant_id = %(tenant_id)s AND schedule_id = %(schedule_id)s AND status = 'running'
      AND (exclusive OR trigger <> 'backfill') AND id <> %(invocation_id)s
    LIMIT 1
), situation AS (
    SELECT source.*,
           existing.id IS NULL AS is_new,
           -- A late slot, and one with unclaimed ones before it that are to go first, is for the ledger to plan.
           existing.id IS NULL AND %(trigger)s = 'schedule'
               AND (clock_timestamp() > %(slot)s + %(lateness_limit)s
                    OR (catch_up_policy = 'all' AND next_slot_at < %(slot)s)) AS is_unsettled,
           blocker.id AS blocker_id,
           CASE WHEN existing.is_made_up THEN existing.exclusive ELSE overlap_policy <> 'allow' END AS is_exclusive,
           -- Whoever makes up for the past waits for its turn and makes others wait; it never costs a slot of today.
           overlap_policy <> 'skip' OR COALESCE(blocker.is_made_up, FALSE) OR COALESCE(existing.is_made_up, FALSE)
               OR COALESCE(existing.waits, 0) > 0 AS may_wait,
           EXISTS (SELECT 1 FROM schedules_schedulerun older
                   WHERE older.tenant_id = %(tenant_id)s AND older.schedule_id = %(schedule_id)s
                     AND older.status = 'queued' AND older.catch_up AND older.slot < %(slot)s
                     AND %(trigger)s = 'schedule') AS has_older_in_line
    FROM source LEFT JOIN existing ON TRUE LEFT JOIN blocker ON TRUE
), decision AS (
    SELECT situation.*,
           CASE
               WHEN is_unsettled THEN 'unsettled'
               WHEN disabled_reason <> '' THEN 'skipped_disabled'
               WHEN is_exclusive AND blocker_id IS NOT NULL AND NOT may_wait THEN 'skipped_overlap'
               WHEN is_exclusive AND (blocker_id IS NOT NULL OR has_older_in_line) THEN 'queued'
               ELSE 'running'
           END AS status
    FROM situation
), claimed AS (
    INSERT INTO schedules_schedulerun AS run (
        id, tenant_id, install_id, schedule_id, trigger, slot, status, reason, exclusive, waits, blocked_by, attempts,
        version_id, version_name, content_hash, endpoint_method, endpoint_path, schedule_revision, payload,
        actor, error, workflow_id, workflow_run_id, started_at, finished_at
    )
    SELECT %(invocation_id)s, tenant_id, install_id, id, %(trigger)s, %(slot)s, status,
           CASE status
               WHEN 'skipped_disabled' THEN disabled_reason
               WHEN 'skipped_overlap' THEN 'another run of the schedule was in flight'
               WHEN 'queued' THEN 'it waits for another run of the schedule'
               ELSE ''
           END,
           is_exclusive, CASE WHEN status = 'queued' THEN 1 ELSE 0 END,
           CASE WHEN status IN ('skipped_overlap', 'queued') THEN blocker_id END,
           CASE WHEN status = 'running' THEN 1 ELSE 0 END,
           version_id, version_name, content_hash, endpoint_method, endpoint_path, revision, payload,
           '', '', %(workflow_id)s, %(workflow_run_id)s,
           CASE WHEN status = 'running' THEN clock_timestamp() END,
           CASE WHEN status NOT IN ('running', 'queued') THEN clock_timestamp() END
    FROM decision
    -- A run that exists goes on whatever became of the grid since.
    WHERE status <> 'unsettled'
      AND (NOT is_new OR %(trigger)s <> 'schedule'
           OR (%(on_grid)s AND cron = %(known_cron)s AND timezone = %(known_timezone)s AND is_owed AND NOT is_off))
    ON CONFLICT (id) DO UPDATE SET
        -- A queued run starts now, by today's rules; one whose attempt died goes on as it began.
        status = CASE WHEN run.status = 'running' THEN run.status ELSE EXCLUDED.status END,
        reason = CASE WHEN run.status = 'running' THEN run.reason ELSE EXCLUDED.reason END,
        exclusive = CASE WHEN run.status = 'running' THEN run.exclusive ELSE EXCLUDED.exclusive END,
        waits = run.waits + CASE WHEN run.status = 'running' THEN 0 ELSE EXCLUDED.waits END,
        blocked_by = CASE WHEN run.status = 'running' THEN run.blocked_by ELSE EXCLUDED.blocked_by END,
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
    -- Two workflows can stand for one run where the ledger started one that the engine was late with.
    WHERE run.status = 'queued' OR (run.status = 'running' AND run.workflow_id = EXCLUDED.workflow_id)
    RETURNING run.*, jsonb_array_length(run.attempt_log) AS attempts_recorded
)
SELECT claimed.id, claimed.tenant_id, claimed.install_id, claimed.schedule_id, claimed.trigger, claimed.slot,
       claimed.status, claimed.reason, claimed.exclusive, claimed.catch_up, claimed.waits,
       claimed.blocked_by,
       claimed.attempts, claimed.attempts_recorded, claimed.failed_envelopes, claimed.cancel_requested_at,
       claimed.version_id, claimed.content_hash, claimed.endpoint_method, claimed.endpoint_path, claimed.payload,
       EXTRACT(EPOCH FROM clock_timestamp() - claimed.started_at) AS elapsed_seconds,
       EXTRACT(EPOCH FROM claimed.started_at - claimed.slot) AS lateness_seconds,
       claimed.started_at, decision.status AS decision, decision.is_owed, decision.is_off, decision.is_dangling,
       decision.schedule_enabled, decision.stop_reason, decision.install_enabled,
       decision.cron, decision.timezone, decision.overlap_policy, decision.retry_max_attempts,
       decision.retry_first_delay_seconds, decision.retry_factor, decision.retry_longest_delay_seconds,
       decision.run_deadline_seconds, decision.attempt_timeout_seconds, decision.consecutive_failures,
       decision.extension_id, decision.config, decision.granted_caps, decision.secret_envelope
FROM decision LEFT JOIN claimed ON TRUE
"""
