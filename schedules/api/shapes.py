"""The shapes of what the APIs answer, as the OpenAPI document shows them.

`answers` writes the answers themselves, without a serializer on the way; a test holds the two against each other.
Each shape has an ``example``, which the document shows and a test checks.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from rest_framework import serializers

from schedules.api.fields import PayloadField
from schedules.models import (
    CatchUpPolicy,
    HttpMethod,
    OverlapPolicy,
    RunStatus,
    SyncState,
    Trigger,
)

INSTALL: Final = "0b8f5b1e-6d3a-4f5e-9a51-4f3a1f0c7a11"
SCHEDULE: Final = "5e0b9c52-2f64-4f5b-8a3e-9f8f6f3f6f10"
ENDPOINT: Final = "c1f4a5de-2f0b-4d57-8d0e-0f6d5f7b1a22"
RUN: Final = "8d1f3f0a-7b1c-5e0d-9c7b-2a4f6b8d0e12"
TENANT: Final = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
HASH: Final = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

FREQUENT: Final = "Cron too frequent: * * * * * fires 60 seconds apart, at least 300 are allowed"

Example = dict[str, Any]


class Shape(serializers.Serializer[Any]):
    """Base of the shapes: every member is always there, and may be null where it says so."""

    example: ClassVar[Example] = {}


def words(help_text: str = "", **options: Any) -> serializers.CharField:
    """A text of an answer."""
    return serializers.CharField(help_text=help_text, **options)


def moment(help_text: str = "", **options: Any) -> serializers.DateTimeField:
    """A time of an answer, RFC 3339 in UTC."""
    return serializers.DateTimeField(help_text=help_text, **options)


class Error(Shape):
    """What every refusal and failure says."""

    code = words("For programs: `invalid`, `not_found`, `conflict`, `stale_revision`, `rate_limited` and so on.")
    message = words("For people.")
    # Both names are taken by the framework's serializers, which give their own members way.
    fields = serializers.DictField(  # type: ignore[assignment]
        child=serializers.CharField(), help_text="What is wrong, by member of the request."
    )
    data = serializers.DictField(  # type: ignore[assignment]
        child=serializers.JSONField(), help_text="What programs need beside the code."
    )

    example = {
        "code": "invalid",
        "message": FREQUENT,
        "fields": {"cron": FREQUENT},
        "data": {},
    }


class Endpoint(Shape):
    """An endpoint of a version."""

    id = serializers.UUIDField()
    method = serializers.ChoiceField(choices=HttpMethod.choices)
    path = words()
    handler = words("What the manifest names as its handler.")
    schedulable = serializers.BooleanField()

    example = {
        "id": ENDPOINT,
        "method": "POST",
        "path": "/api/heartbeat",
        "handler": "dist/main",
        "schedulable": True,
    }


class InstalledEndpoint(Endpoint):
    """An endpoint of the installed version, and why it cannot be scheduled."""

    unschedulable_reason = words(allow_null=True)

    example = Endpoint.example | {"unschedulable_reason": None}


class Hold(Shape):
    """A pause that an operator set in Temporal: no slot runs until it is lifted."""

    since = moment("When it was first seen.")
    note = words("What the operator gave as the reason.", allow_null=True)

    example = {"since": "2026-03-28T08:00:00Z", "note": "the vendor asked us to stop"}


class Schedule(Shape):
    """A schedule, how its mirror in Temporal stands, and what came of it last."""

    id = serializers.UUIDField()
    install_id = serializers.UUIDField()
    endpoint_id = serializers.UUIDField(allow_null=True, help_text="Null where the installed version lacks it.")
    endpoint_method = words()
    endpoint_path = words()
    name = words(allow_null=True)
    cron = words("Five fields.")
    timezone = words("An IANA name.")
    enabled = serializers.BooleanField()
    disabled_reason = words("Who or what disabled it, where that was not a person.", allow_null=True)
    payload = PayloadField(allow_null=True, help_text="What each call sends, an object or an array.")
    overlap_policy = serializers.ChoiceField(choices=OverlapPolicy.choices)
    catch_up_policy = serializers.ChoiceField(choices=CatchUpPolicy.choices)
    retry_max_attempts = serializers.IntegerField()
    retry_first_delay_seconds = serializers.IntegerField()
    retry_factor = serializers.FloatField()
    retry_longest_delay_seconds = serializers.IntegerField()
    run_deadline_seconds = serializers.IntegerField()
    attempt_timeout_seconds = serializers.IntegerField(allow_null=True)
    pause_after_failures = serializers.IntegerField(allow_null=True)
    consecutive_failures = serializers.IntegerField()
    revision = serializers.IntegerField(help_text="Counts changes; `If-Match` takes it.")
    sync_state = serializers.ChoiceField(choices=SyncState.choices)
    sync_error = words("Why the mirror is not there yet.", allow_null=True)
    held = Hold(allow_null=True)
    next_run_at = moment("Null where it is disabled.", allow_null=True)
    last_run_at = moment(allow_null=True)
    last_run_status = serializers.ChoiceField(choices=RunStatus.choices, allow_null=True)
    last_error = words(allow_null=True)
    created_at = moment()
    updated_at = moment()

    example = {
        "id": SCHEDULE,
        "install_id": INSTALL,
        "endpoint_id": ENDPOINT,
        "endpoint_method": "POST",
        "endpoint_path": "/api/heartbeat",
        "name": "Nightly report",
        "cron": "30 2 * * *",
        "timezone": "Europe/Berlin",
        "enabled": True,
        "disabled_reason": None,
        "payload": {"region": "eu"},
        "overlap_policy": "skip",
        "catch_up_policy": "none",
        "retry_max_attempts": 3,
        "retry_first_delay_seconds": 10,
        "retry_factor": 2.0,
        "retry_longest_delay_seconds": 300,
        "run_deadline_seconds": 600,
        "attempt_timeout_seconds": None,
        "pause_after_failures": None,
        "consecutive_failures": 0,
        "revision": 1,
        "sync_state": "synced",
        "sync_error": None,
        "held": None,
        "next_run_at": "2026-03-29T01:00:00Z",
        "last_run_at": "2026-03-28T01:30:00.412Z",
        "last_run_status": "succeeded",
        "last_error": None,
        "created_at": "2026-03-01T09:00:00Z",
        "updated_at": "2026-03-01T09:00:00Z",
    }


class Attempt(Shape):
    """One call to the runner."""

    attempt = serializers.IntegerField(help_text="Counts from 1.")
    started_at = moment()
    finished_at = moment()
    outcome = serializers.ChoiceField(choices=["succeeded", "failed", "timed_out"])
    http_status = serializers.IntegerField(allow_null=True, help_text="The runner's own.")
    envelope_status = serializers.IntegerField(allow_null=True, help_text="The extension's.")
    error = words()

    example = {
        "attempt": 1,
        "started_at": "2026-03-28T01:30:00.412Z",
        "finished_at": "2026-03-28T01:30:00.934Z",
        "outcome": "succeeded",
        "http_status": 200,
        "envelope_status": 200,
        "error": "",
    }


class Run(Shape):
    """What became of one slot or one request."""

    id = serializers.UUIDField(help_text="The invocation id that the extension sees.")
    install_id = serializers.UUIDField()
    idempotency_key = words("What the runner recognises a repeated call by.")
    schedule_id = serializers.UUIDField()
    status = serializers.ChoiceField(choices=RunStatus.choices)
    reason = words("Why it ended so.", allow_null=True)
    trigger = serializers.ChoiceField(choices=Trigger.choices)
    slot = moment("When it was due, or asked for.")
    created_at = moment()
    started_at = moment(allow_null=True)
    finished_at = moment(allow_null=True)
    duration_ms = serializers.IntegerField(allow_null=True)
    lateness_ms = serializers.IntegerField(allow_null=True, help_text="From the slot to the start.")
    attempts = serializers.IntegerField()
    attempt_log = Attempt(many=True)
    version = words("The extension's version that ran.", allow_null=True)
    content_hash = words(allow_null=True)
    endpoint_method = words(allow_null=True)
    endpoint_path = words(allow_null=True)
    schedule_revision = serializers.IntegerField(allow_null=True)
    actor = words("Who asked for it.", allow_null=True)
    catch_up = serializers.BooleanField(help_text="Whether it makes up for an outage.")
    blocked_by = serializers.UUIDField(allow_null=True, help_text="The run that was in its way.")
    replay_of = serializers.UUIDField(allow_null=True)
    cancel_requested_at = moment(allow_null=True)
    http_status = serializers.IntegerField(allow_null=True)
    error = words(allow_null=True)
    response_bytes = serializers.IntegerField(allow_null=True)
    response_text = words("How the answer begins.", allow_null=True)
    workflow_id = words(allow_null=True)
    workflow_run_id = words(allow_null=True)

    example = {
        "id": RUN,
        "install_id": INSTALL,
        "idempotency_key": f"{RUN}:0",
        "schedule_id": SCHEDULE,
        "status": "succeeded",
        "reason": None,
        "trigger": "schedule",
        "slot": "2026-03-28T01:30:00Z",
        "created_at": "2026-03-28T01:30:00.405Z",
        "started_at": "2026-03-28T01:30:00.412Z",
        "finished_at": "2026-03-28T01:30:00.934Z",
        "duration_ms": 522,
        "lateness_ms": 412,
        "attempts": 1,
        "attempt_log": [Attempt.example],
        "version": "1.4.0",
        "content_hash": HASH,
        "endpoint_method": "POST",
        "endpoint_path": "/api/heartbeat",
        "schedule_revision": 1,
        "actor": None,
        "catch_up": False,
        "blocked_by": None,
        "replay_of": None,
        "cancel_requested_at": None,
        "http_status": 200,
        "error": None,
        "response_bytes": 14,
        "response_text": '{"sent": 1250}',
        "workflow_id": f"extsched:{INSTALL}:{SCHEDULE}-2026-03-28T01:30:00Z",
        "workflow_run_id": "019599b0-5f3c-7d5e-8f4f-6a3c9d0b1e77",
    }


class RunWithPayload(Run):
    """A run shown alone, with what it sends."""

    payload = PayloadField(allow_null=True)

    example = Run.example | {"payload": {"region": "eu"}}


class Slot(Shape):
    """A time at which a schedule is due."""

    utc = moment()
    local = serializers.DateTimeField(help_text="In the schedule's zone, with its offset.")

    example = {"utc": "2026-03-29T01:00:00Z", "local": "2026-03-29T03:00:00+02:00"}


class ClockChange(Shape):
    """What a change of the clocks does to a schedule."""

    at = moment()
    kind = serializers.ChoiceField(choices=["skipped", "repeated"], help_text="What becomes of the local time.")
    text = words("For people.")

    example = {
        "at": "2026-03-29T01:00:00Z",
        "kind": "skipped",
        "text": (
            "The clock in Europe/Berlin skips 02:00 to 03:00 on 2026-03-29: "
            "what is due then (02:30) runs once, at 03:00."
        ),
    }


class PreviewWarning(Shape):
    """What is allowed and may not be meant."""

    code = words("For programs.")
    text = words("For people.")

    example = {
        "code": "busy_minute",
        "text": "It runs at minute 0, when most schedules do; another minute is likely to start sooner.",
    }


class Preview(Shape):
    """What an expression would do."""

    cron = words()
    timezone = words()
    words = serializers.CharField(help_text="The expression in words.")
    shortest_gap_seconds = serializers.IntegerField()
    follows_elapsed_time = serializers.BooleanField(
        help_text="Whether it keeps its pace through clock changes, as intervals of less than a day do."
    )
    next_runs = Slot(many=True)
    clock_changes = ClockChange(many=True)
    warnings = PreviewWarning(many=True)

    example = {
        "cron": "30 2 * * *",
        "timezone": "Europe/Berlin",
        "words": "At 02:30",
        "shortest_gap_seconds": 86400,
        "follows_elapsed_time": False,
        "next_runs": [Slot.example],
        "clock_changes": [ClockChange.example],
        "warnings": [],
    }


class Percentiles(Shape):
    """Milliseconds."""

    p50 = serializers.FloatField(allow_null=True)
    p95 = serializers.FloatField(allow_null=True)

    example = {"p50": 480.5, "p95": 1210.0}


class Stats(Shape):
    """Numbers of runs."""

    days = serializers.IntegerField()
    runs_by_status = serializers.DictField(child=serializers.IntegerField())
    success_rate = serializers.FloatField(allow_null=True, help_text="Between 0 and 1, of the runs that were started.")
    duration_ms = Percentiles()
    lateness_ms = Percentiles()
    last_success_at = moment(allow_null=True)
    next_slot_at = moment(allow_null=True)

    example = {
        "days": 7,
        "runs_by_status": {"succeeded": 165, "failed": 3},
        "success_rate": 0.982,
        "duration_ms": Percentiles.example,
        "lateness_ms": {"p50": 310.0, "p95": 900.2},
        "last_success_at": "2026-03-28T01:30:00.934Z",
        "next_slot_at": "2026-03-29T01:00:00Z",
    }


class BackfillPlan(Shape):
    """The slots of a past range."""

    count = serializers.IntegerField()
    already_succeeded = serializers.IntegerField(help_text="How many of them have succeeded before.")
    slots = serializers.ListField(child=serializers.DateTimeField())

    example = {"count": 1, "already_succeeded": 0, "slots": ["2026-03-28T01:30:00Z"]}


class BackfillQueued(Shape):
    """The runs that a backfill asked for."""

    count = serializers.IntegerField()
    run_ids = serializers.ListField(child=serializers.UUIDField())

    example = {"count": 1, "run_ids": [RUN]}


class DisabledSchedules(Shape):
    """What was switched off."""

    disabled = serializers.IntegerField()
    schedule_ids = serializers.ListField(child=serializers.UUIDField())

    example = {"disabled": 1, "schedule_ids": [SCHEDULE]}
