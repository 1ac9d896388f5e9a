"""What the buttons of a schedule's page do. Each goes through a service; what is refused is told on the page."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, Final

from django import forms
from django.contrib import messages
from django.contrib.admin import ModelAdmin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse

from schedules import cron, ledger, queries, runs, services
from schedules.admin import confirm, display
from schedules.admin.base import actor_of, may_write
from schedules.errors import InvalidFields, SchedulingError
from schedules.models import UNFINISHED_STATUSES, Schedule

# So many runs in flight or in line are asked to stop at once; with more, the button is pressed again.
MAX_CANCELLED: Final = 500


def act_view(_model_admin: ModelAdmin[Schedule], request: HttpRequest, schedule: Schedule) -> HttpResponse:
    """Do what the button says, and go where the result is seen."""
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    _require_write(request, schedule)
    act = _ACTS.get(request.POST.get("do", ""))
    page = display.address("schedule_page", schedule.id)
    if act is None:
        messages.error(request, "This is not something that a schedule can be asked to do")
        return HttpResponseRedirect(page)
    try:
        return HttpResponseRedirect(act(request, schedule) or page)
    except SchedulingError as error:
        messages.error(request, error.message)
        return HttpResponseRedirect(page)


def _run_now(request: HttpRequest, schedule: Schedule) -> str:
    key = request.POST.get("request_key", "")[:100]
    run = runs.request_run_now(**_named(request, schedule), idempotency_key=f"admin {key}" if key else None)
    return display.address("schedulerun_change", run.id)


def _set_enabled(request: HttpRequest, schedule: Schedule, *, enabled: bool) -> None:
    services.set_enabled(**_named(request, schedule), enabled=enabled)
    messages.success(request, f"{schedule} is {'enabled' if enabled else 'disabled'}")


def _cancel_running(request: HttpRequest, schedule: Schedule) -> None:
    unfinished = queries.runs_of(tenant_id=schedule.tenant_id, install_id=schedule.install_id).filter(
        schedule_id=schedule.id, status__in=UNFINISHED_STATUSES
    )
    count = 0
    for run_id in list(unfinished.values_list("id", flat=True)[:MAX_CANCELLED]):
        try:
            runs.cancel_run(
                tenant_id=schedule.tenant_id, install_id=schedule.install_id, run_id=run_id, actor=actor_of(request)
            )
        except SchedulingError:  # it has ended by itself meanwhile, which is as good
            continue
        count += 1
    messages.success(request, f"{count} run{'' if count == 1 else 's'} asked to stop")


_ACTS: Final[dict[str, Callable[[HttpRequest, Schedule], str | None]]] = {
    "run_now": _run_now,
    "enable": partial(_set_enabled, enabled=True),
    "disable": partial(_set_enabled, enabled=False),
    "cancel_running": _cancel_running,
}


def lift_hold_view(model_admin: ModelAdmin[Schedule], request: HttpRequest, schedule: Schedule) -> HttpResponse:
    """Ask, and lift the operator's hold."""
    _require_write(request, schedule)
    page = display.address("schedule_page", schedule.id)
    if schedule.held_since is None:
        messages.info(request, "No operator holds this schedule any more")
        return HttpResponseRedirect(page)
    if request.method != "POST" or "confirmed" not in request.POST:
        return confirm.ask(model_admin, request, confirm.LIFT_HOLD, back=page, schedules=[schedule])
    services.lift_hold(**_named(request, schedule))
    messages.success(request, "The hold is lifted, slots run again from now on")
    return HttpResponseRedirect(page)


def delete_view(model_admin: ModelAdmin[Schedule], request: HttpRequest, schedule: Schedule) -> HttpResponse:
    """Ask, and delete."""
    _require_write(request, schedule)
    if request.method != "POST" or "post" not in request.POST:
        page = display.address("schedule_page", schedule.id)
        hidden = {"post": "yes"}
        return confirm.ask(model_admin, request, confirm.DELETE, back=page, schedules=[schedule], hidden=hidden)
    services.delete_schedule(**_named(request, schedule))
    messages.success(request, f"{schedule} was deleted; its runs are kept")
    return HttpResponseRedirect(display.address("schedule_changelist"))


class BackfillForm(forms.Form):
    """A range of the past, on the clock of the schedule's zone."""

    start = forms.DateTimeField(
        label="From", widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M")
    )
    end = forms.DateTimeField(
        label="Until, not included",
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
    )
    one_at_a_time = forms.BooleanField(
        label="One at a time", required=False, initial=True, help_text="Slots of today go first. Otherwise all at once."
    )


def backfill_view(model_admin: ModelAdmin[Schedule], request: HttpRequest, schedule: Schedule) -> HttpResponse:
    """First the range, then what it would run, then do it."""
    _require_write(request, schedule)
    zone = cron.parse_zone(schedule.timezone)
    now = ledger.database_now().astimezone(zone).replace(second=0, microsecond=0, tzinfo=None)
    initial = {"start": now - timedelta(days=1), "end": now, "one_at_a_time": True}
    form = BackfillForm(request.POST or None, initial=initial)
    context = {
        **model_admin.admin_site.each_context(request),
        "title": f"Backfill {schedule}",
        "schedule": schedule,
        "form": form,
        "opts": model_admin.opts,
    }
    if request.method == "POST" and form.is_valid():
        given = form.cleaned_data
        # As typed, on the zone's clock; the form itself reads it as UTC, which is the project's zone.
        span = {name: given[name].replace(tzinfo=zone) for name in ("start", "end")}
        try:
            if "confirmed" in request.POST:
                return _backfill(request, schedule, span, one_at_a_time=given["one_at_a_time"])
            context["plan"] = runs.plan_backfill(
                tenant_id=schedule.tenant_id, install_id=schedule.install_id, schedule_id=schedule.id, **span
            )
        except InvalidFields as error:
            for name, message in error.fields.items():
                form.add_error(name if name in form.fields else None, message)
        except SchedulingError as error:
            form.add_error(None, error.message)
    return TemplateResponse(request, "admin/schedules/backfill.html", context)


def _backfill(request: HttpRequest, schedule: Schedule, span: dict[str, Any], *, one_at_a_time: bool) -> HttpResponse:
    queued = runs.request_backfill(**_named(request, schedule), **span, one_at_a_time=one_at_a_time)
    messages.success(request, f"{len(queued)} runs queued; this page shows how they get on")
    return HttpResponseRedirect(display.address("schedule_page", schedule.id))


def _named(request: HttpRequest, schedule: Schedule) -> dict[str, Any]:
    return {
        "tenant_id": schedule.tenant_id,
        "install_id": schedule.install_id,
        "schedule_id": schedule.id,
        "actor": actor_of(request),
    }


def _require_write(request: HttpRequest, schedule: Schedule) -> None:
    if not may_write(request.user, tenant_id=schedule.tenant_id):
        raise PermissionDenied
