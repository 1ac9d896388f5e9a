"""Runs: to look at."""

from __future__ import annotations

from django.contrib import admin
from django.utils.html import format_html
from unfold.decorators import display

from schedules import temporal
from schedules.admin.base import TenantScopedAdmin
from schedules.models import RunStatus, ScheduleRun

STATUS_COLOURS: dict[str, str] = {
    RunStatus.SUCCEEDED: "success",
    RunStatus.FAILED: "danger",
    RunStatus.TIMED_OUT: "danger",
    RunStatus.MISSED: "warning",
    RunStatus.SKIPPED_OVERLAP: "warning",
    RunStatus.SKIPPED_DISABLED: "warning",
    RunStatus.RUNNING: "info",
    RunStatus.QUEUED: "info",
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
        "created_at",
        "started_at",
        "finished_at",
    )
    readonly_fields = fields

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
