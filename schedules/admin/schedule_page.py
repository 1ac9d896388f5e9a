"""One schedule's page: what it is, what it has done, what it does next."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

from django.contrib.admin import ModelAdmin
from django.core.exceptions import ValidationError
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.response import TemplateResponse
from django.utils.safestring import SafeString

from schedules import cron, kill_switches, policies, preview, queries, services, stats
from schedules.admin import charts, display, kill_switch_pages, run_table, trail, zones
from schedules.admin.base import may_write, visible_tenants
from schedules.admin.schedule_form import POLICY_CHOICES
from schedules.errors import InvalidFields
from schedules.models import UNFINISHED_STATUSES, ExtensionInstall, KillSwitch, RunStatus, Schedule, ScheduleRun

CHARTED: Final = 100
SLOTS_SHOWN: Final = 5


def state_badge(schedule: Schedule) -> SafeString:
    """Whether it runs, and if not, by whom it was stopped. The row needs its install."""
    if not schedule.install.is_enabled:
        return display.badge("Extension disabled", "warn")
    if schedule.enabled and schedule.held_since is not None:
        return display.badge("Held", "warn", title=schedule.held_note)
    if schedule.enabled:
        return display.badge("Enabled", "good")
    if schedule.disabled_reason:
        title = "Auto-paused" if schedule.endpoint_id is not None else "Endpoint gone"
        return display.badge(title, "bad", title=schedule.disabled_reason)
    return display.badge("Disabled", "quiet")


def schedule_view(model_admin: ModelAdmin[Schedule], request: HttpRequest, schedule: Schedule) -> HttpResponse:
    """The page. About a dozen statements, however many runs there are."""
    now = datetime.now(UTC)
    runs = queries.runs_of(tenant_id=schedule.tenant_id, install_id=schedule.install_id).filter(schedule_id=schedule.id)
    newest = list(runs.defer("payload", "response_text", "attempt_log")[:CHARTED])
    unfinished = _unfinished(schedule)
    switch = kill_switches.find_over(schedule.install)
    is_dangling = services.is_dangling(schedule)
    context = {
        **model_admin.admin_site.each_context(request),
        "title": str(schedule),
        "schedule": schedule,
        "install": schedule.install,
        "state": state_badge(schedule),
        "stopped": kill_switch_pages.notices(request, [switch]),
        "may_write": may_write(request.user, tenant_id=schedule.tenant_id),
        "is_dangling": is_dangling,
        "refusal": _refusal(schedule, switch, is_dangling=is_dangling),
        "slots": _next_slots(schedule, now=now),
        "policies": describe_policies(schedule),
        "chart": charts.runs_chart(list(reversed(newest))),
        "table": run_table.read_table(request, runs),
        "unfinished": unfinished,
        "is_live": bool(unfinished) or schedule.synced_generation != schedule.generation,
        "stats": stats.read_stats(
            tenant_id=schedule.tenant_id, install_id=schedule.install_id, schedule_id=schedule.id
        ),
        "trail": trail.read_trail(tenant_id=schedule.tenant_id, subject_id=schedule.id),
        # The same key from the same page: a second click asks for the same run.
        "request_key": uuid4(),
        "opts": model_admin.opts,
        "now": now,
    }
    counts = context["stats"].by_status
    succeeded, failed = counts[RunStatus.SUCCEEDED], sum(counts[status] for status in stats.FAILED_STATUSES)
    context["success_rate"] = display.percentage(succeeded, succeeded + failed)
    return TemplateResponse(request, "admin/schedules/schedule_page.html", context)


def refusal_of(schedule: Schedule) -> str:
    """Why nobody can run it by hand as things are; empty where they can. The row needs its install."""
    switch = kill_switches.find_over(schedule.install)
    return _refusal(schedule, switch, is_dangling=services.is_dangling(schedule))


def _refusal(schedule: Schedule, switch: KillSwitch | None, *, is_dangling: bool) -> str:
    if not schedule.install.is_enabled:
        return "The extension is disabled"
    if switch is not None:
        return f"An operator has stopped it: {switch.reason}"
    return "The installed version does not have its endpoint" if is_dangling else ""


def _unfinished(schedule: Schedule) -> dict[str, int]:
    """How many of its runs wait, and how many are in flight."""
    rows = ScheduleRun.objects.filter(
        tenant_id=schedule.tenant_id, schedule_id=schedule.id, status__in=UNFINISHED_STATUSES
    )
    counts: dict[str, int] = {}
    for status in rows.values_list("status", flat=True)[:1000]:
        counts[status] = counts.get(status, 0) + 1
    return counts


def _next_slots(schedule: Schedule, *, now: datetime) -> list[datetime]:
    if not (schedule.enabled and schedule.install.is_enabled) or schedule.held_since is not None:
        return []
    try:
        expression, zone = cron.parse(schedule.cron), cron.parse_zone(schedule.timezone)
    except cron.CronError:  # a row from before a rule that it breaks
        return []
    return cron.next_slots(expression, zone, after=now, count=SLOTS_SHOWN)


def describe_policies(schedule: Schedule) -> list[tuple[str, str]]:
    """The policies in words, as pairs of question and answer."""
    words = {name: dict(choices) for name, choices in POLICY_CHOICES.items()}
    threshold = policies.pause_threshold(schedule.pause_after_failures, cron.parse(schedule.cron))
    attempt = schedule.attempt_timeout_seconds
    pauses = f"{schedule.retry_first_delay_seconds} to {schedule.retry_longest_delay_seconds} s"
    return [
        ("While a run is in flight", words["overlap_policy"][schedule.overlap_policy]),
        ("After an outage", words["catch_up_policy"][schedule.catch_up_policy]),
        ("Attempts", f"{schedule.retry_max_attempts} at most, with pauses of {pauses}"),
        (
            "Time limits",
            f"{display.duration_words(schedule.run_deadline_seconds)} for a run, "
            + (f"{attempt} s for an attempt" if attempt else "the platform's limit for an attempt"),
        ),
        ("Pause", f"after {threshold} failed runs in a row" if threshold else "never, however many runs fail"),
    ]


def preview_view(request: HttpRequest) -> HttpResponse:
    """What the expression in the form would do, as a part of a page.

    By the preview API's own code; wrong input is an answer here, because it is what one types on the way.
    """
    install_id = queries.parse_uuid(request.GET.get("install", ""))
    installs = ExtensionInstall.objects.select_related("tenant").defer("config", "secret_envelope")
    tenants = visible_tenants(request.user)
    if tenants is not None:
        installs = installs.filter(tenant_id__in=tenants)
    install = None if install_id is None else installs.filter(id=install_id).first()
    if install is None:
        raise Http404("Extension not found")
    context: dict[str, Any] = {}
    text = request.GET.get("cron", "").strip()
    if text:
        try:
            context["preview"] = preview.preview(
                text=text,
                zone_name=zones.complete(request.GET.get("timezone", "")) or install.tenant.timezone or "UTC",
                after=datetime.now(UTC),
                longest_run_seconds=_longest_run(request, install),
            )
        except InvalidFields as error:
            context["problems"] = error.fields
        except ValidationError as error:
            context["problems"] = {"timezone": error.message}
    return render(request, "admin/schedules/preview.html", context)


def _longest_run(request: HttpRequest, install: ExtensionInstall) -> float | None:
    schedule_id = queries.parse_uuid(request.GET.get("schedule", ""))
    if schedule_id is None:
        return None
    return queries.longest_recent_run_seconds(tenant_id=install.tenant_id, schedule_id=schedule_id)
