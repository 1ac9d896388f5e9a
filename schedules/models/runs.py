"""Runs, and how many there were."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from schedules.models.choices import MAX_PATH_LENGTH, UNFINISHED_STATUSES, RunStatus, Trigger
from schedules.models.registry import ExtensionInstall, ExtensionVersion, Tenant
from schedules.models.schedules import Schedule


class ScheduleRun(models.Model):
    """What became of one slot or one manual request. The id is the invocation id.

    A run outlives its schedule and its install, so it refers to them without a constraint and keeps what it ran.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    tenant = models.ForeignKey(
        Tenant,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="runs",
    )
    install = models.ForeignKey(
        ExtensionInstall,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="runs",
    )
    schedule = models.ForeignKey(
        Schedule,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="runs",
    )
    trigger = models.CharField(max_length=8, choices=Trigger.choices)
    slot = models.DateTimeField(help_text="When it was due; for a manual run, when it was asked for.")
    status = models.CharField(max_length=16, choices=RunStatus.choices)
    reason = models.CharField(max_length=256, blank=True)
    exclusive = models.BooleanField(db_default=True, help_text="Whether it keeps other runs of its schedule out.")
    catch_up = models.BooleanField(db_default=False, help_text="Whether it makes up for a slot that an outage took.")
    waits = models.PositiveSmallIntegerField(db_default=0, help_text="How often it found another run in its way.")
    blocked_by = models.UUIDField(null=True, help_text="The run that was in its way, or that took its place.")
    replay_of = models.UUIDField(null=True, help_text="The run that it repeats.")
    cancel_requested_at = models.DateTimeField(null=True)
    cancel_reason = models.CharField(max_length=256, blank=True, db_default="")
    attempts = models.PositiveSmallIntegerField(db_default=0)
    failed_envelopes = models.PositiveSmallIntegerField(
        db_default=0,
        help_text="Failed answers received so far: the second part of the idempotency key.",
    )
    attempt_log = models.JSONField(db_default=models.Value([], models.JSONField()), default=list)
    version = models.ForeignKey(
        ExtensionVersion,
        on_delete=models.DO_NOTHING,
        null=True,
        db_constraint=False,
        db_index=False,
        related_name="runs",
    )
    version_name = models.CharField(max_length=64, blank=True)
    content_hash = models.CharField(max_length=128, blank=True)
    endpoint_method = models.CharField(max_length=8, blank=True)
    endpoint_path = models.CharField(max_length=MAX_PATH_LENGTH, blank=True)
    schedule_revision = models.PositiveIntegerField(null=True)
    payload = models.JSONField(null=True)
    payload_given = models.BooleanField(
        db_default=False,
        help_text="Whether the request brought the payload, instead of the schedule.",
    )
    actor = models.CharField(max_length=256, blank=True, help_text="Who asked, for a manual run.")
    http_status = models.PositiveSmallIntegerField(null=True)
    error = models.CharField(max_length=1024, blank=True)
    response_bytes = models.PositiveIntegerField(null=True)
    response_text = models.TextField(blank=True, db_default="", help_text="The beginning of what came back.")
    workflow_id = models.CharField(max_length=512, blank=True)
    workflow_run_id = models.CharField(max_length=64, blank=True)
    created_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name = "run"
        verbose_name_plural = "runs"
        ordering = ("-slot", "-id")
        constraints = [
            models.UniqueConstraint(
                fields=("tenant", "schedule", "slot"),
                condition=Q(trigger=Trigger.SCHEDULE),
                name="a_slot_has_one_run",
            ),
            models.UniqueConstraint(
                fields=("tenant", "schedule"),
                condition=Q(status=RunStatus.RUNNING, exclusive=True),
                name="a_schedule_has_one_run_in_flight",
            ),
            models.CheckConstraint(
                condition=Q(status__in=UNFINISHED_STATUSES, finished_at__isnull=True)
                | (~Q(status__in=UNFINISHED_STATUSES) & Q(finished_at__isnull=False)),
                name="a_run_is_finished_once_its_status_is_terminal",
            ),
        ]
        indexes = [
            models.Index(fields=("tenant", "schedule", "-slot", "-id"), name="runs_of_a_schedule"),
            models.Index(
                fields=("tenant", "created_at"),
                condition=Q(status__in=UNFINISHED_STATUSES),
                name="runs_not_yet_finished",
            ),
            models.Index(
                fields=("tenant", "schedule", "slot"),
                condition=Q(status=RunStatus.QUEUED),
                name="runs_waiting_in_line",
            ),
            models.Index(fields=("tenant", "install", "-slot", "-id"), name="runs_of_an_install"),
            models.Index(fields=("tenant", "-slot", "-id"), name="runs_of_a_tenant"),
            models.Index(
                fields=("tenant", "status", "-slot", "-id"),
                condition=~Q(status=RunStatus.SUCCEEDED),
                name="runs_that_did_not_succeed",
            ),
            models.Index(
                fields=("tenant", "status", "finished_at"),
                condition=Q(finished_at__isnull=False),
                name="runs_by_when_they_ended",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.status} {self.slot:%Y-%m-%d %H:%M:%S} UTC"

    @property
    def duration_ms(self) -> int | None:
        """Milliseconds from the first attempt's start to the end, or None while it has not ended."""
        if self.started_at is None or self.finished_at is None:
            return None
        return round((self.finished_at - self.started_at).total_seconds() * 1000)

    @property
    def lateness_ms(self) -> int | None:
        """Milliseconds from the slot to the first attempt's start."""
        if self.started_at is None:
            return None
        return round((self.started_at - self.slot).total_seconds() * 1000)


class RunCount(models.Model):
    """How many runs ended in one state on one day (UTC), kept for longer than the runs.

    One row for each schedule, one for each install (without schedule) and one for the tenant (without either), so that
    a sum over any of them reads a row for each day and state.
    """

    id = models.BigAutoField(primary_key=True)
    tenant_id = models.UUIDField()
    install_id = models.UUIDField(null=True)
    schedule_id = models.UUIDField(null=True)
    day = models.DateField()
    status = models.CharField(max_length=16, choices=RunStatus.choices)
    count = models.PositiveBigIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=("tenant_id", "schedule_id", "install_id", "day", "status"),
                nulls_distinct=False,
                name="a_days_runs_of_a_state_are_counted_once",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.count} {self.status} on {self.day}"


class RunCountProgress(models.Model):
    """Up to when finished runs are counted in `RunCount`. One row."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    until = models.DateTimeField()

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="runs_are_counted_by_one_counter")]

    def __str__(self) -> str:
        return f"until {self.until}"
