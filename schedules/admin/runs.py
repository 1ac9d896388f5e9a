"""Runs: to look at, to stop and to repeat."""

from __future__ import annotations

from uuid import UUID

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from unfold.decorators import display

from schedules import runs, temporal
from schedules.admin.base import TenantScopedAdmin, act_on_each, may_write
from schedules.models import RunStatus, Schedule, ScheduleRun

STATUS_COLOURS: dict[str, str] = {
    RunStatus.SUCCEEDED: "success",
    RunStatus.FAILED: "danger",
    RunStatus.TIMED_OUT: "danger",
    RunStatus.MISSED: "warning",
    RunStatus.SKIPPED_OVERLAP: "warning",
    RunStatus.SKIPPED_DISABLED: "warning",
    RunStatus.RUNNING: "info",
    RunStatus.QUEUED: "info",
    RunStatus.CANCELLED: "warning",
    RunStatus.SUPERSEDED: "warning",
}


@admin.register(ScheduleRun)
class ScheduleRunAdmin(TenantScopedAdmin):
    """What became of each slot and each request."""

    list_display = ("slot", "coloured_status", "endpoint", "trigger", "attempts", "http_status", "took", "late")
    list_filter = ("status", "trigger")
    search_fields = ("id", "schedule__id", "endpoint_path")
    fields = (
        "id",
        "status",
        "reason",
        "error",
        "response_text",
        "schedule_link",
        "in_the_way",
        "repeats",
        "catch_up",
        "cancel_requested_at",
        "slot",
        "trigger",
        "actor",
        "endpoint",
        "http_status",
        "attempts",
        "attempt_log",
        "took",
        "late",
        "version_name",
        "content_hash",
        "schedule_revision",
        "payload",
        "response_bytes",
        "workflow",
        "workflow_run_id",
        "created_at",
        "started_at",
        "finished_at",
    )
    readonly_fields = fields
    actions = ("cancel", "replay")

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        """Whoever may write in any tenant; which runs is checked for each."""
        return may_write(request.user)

    @admin.action(description="Cancel", permissions=["cancel"])
    def cancel(self, request: HttpRequest, rows: QuerySet[ScheduleRun]) -> None:
        """Stop each."""
        act_on_each(request, rows.defer("payload"), runs.cancel_run, done="asked to stop")

    @admin.action(description="Run again", permissions=["cancel"])
    def replay(self, request: HttpRequest, rows: QuerySet[ScheduleRun]) -> None:
        """Run each again with the payload that it had."""
        act_on_each(request, rows.defer("payload"), runs.replay_run, done="asked to run again")

    @admin.display(description="schedule")
    def schedule_link(self, run: ScheduleRun) -> str:
        """The schedule, which may be gone by now."""
        schedule = Schedule.objects.filter(tenant_id=run.tenant_id, id=run.schedule_id).first()
        if schedule is None:
            return f"{run.schedule_id} (deleted)"
        address = reverse("admin:schedules_schedule_change", args=[schedule.id])
        return format_html('<a href="{}">{}</a>', address, schedule)

    @admin.display(description="in its way")
    def in_the_way(self, run: ScheduleRun) -> str:
        """The run that kept this one from starting, or took its place."""
        return self._link(run.blocked_by)

    @admin.display(description="repeats")
    def repeats(self, run: ScheduleRun) -> str:
        """The run that this one repeats."""
        return self._link(run.replay_of)

    @staticmethod
    def _link(run_id: UUID | None) -> str:
        if run_id is None:
            return "-"
        return format_html('<a href="{}">{}</a>', reverse("admin:schedules_schedulerun_change", args=[run_id]), run_id)

    @display(description="status", ordering="status", label=STATUS_COLOURS)
    def coloured_status(self, run: ScheduleRun) -> tuple[str, str]:
        """The state, as a label."""
        return run.status, run.get_status_display()

    @admin.display(description="endpoint")
    def endpoint(self, run: ScheduleRun) -> str:
        """What was called."""
        return f"{run.endpoint_method} {run.endpoint_path}".strip() or "-"

    @admin.display(description="took")
    def took(self, run: ScheduleRun) -> str:
        """From the first attempt to the end."""
        return "-" if run.duration_ms is None else f"{run.duration_ms} ms"

    @admin.display(description="late by")
    def late(self, run: ScheduleRun) -> str:
        """From the slot to the first attempt."""
        return "-" if run.lateness_ms is None else f"{run.lateness_ms} ms"

    @admin.display(description="workflow")
    def workflow(self, run: ScheduleRun) -> str:
        """The workflow behind the run, with a link where a Temporal UI is configured."""
        address = temporal.workflow_url(run.workflow_id)
        if not address:
            return run.workflow_id or "-"
        return format_html('<a href="{}">{}</a>', address, run.workflow_id)
