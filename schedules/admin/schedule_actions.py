"""What the buttons of a schedule's page do. Each goes through a service; what is refused is told on the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, Final
from uuid import uuid4

from django import forms
from django.contrib import messages
from django.contrib.admin import ModelAdmin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse

from schedules import cron, idempotency, ledger, queries, runs, services
from schedules.admin import confirm, display, once
from schedules.admin.base import actor_of, may_write
from schedules.errors import InvalidFields, SchedulingError
from schedules.models import UNFINISHED_STATUSES, RunStatus, Schedule, ScheduleRun

# So many runs in flight or in line are asked to stop at once; with more, the button is pressed again.
MAX_CANCELLED: Final = 500


def act_view(model_admin: ModelAdmin[Schedule], request: HttpRequest, schedule: Schedule) -> HttpResponse:
    """Do what the button says, and go where the result is seen; ask before what cannot be undone."""
    page = display.address("schedule_page", schedule.id)
    if request.method != "POST":
        # Whoever had to sign in on the way comes back by GET.
        return HttpResponseRedirect(page)
    _require_write(request, schedule)
    do = request.POST.get("do", "")
    if do in _QUESTIONS and "confirmed" not in request.POST:
        question = _QUESTIONS[do](schedule)
        return confirm.ask(model_admin, request, question, back=page, subject=schedule, hidden={"do": do})
    act = _ACTS.get(do)
    if act is None:
        messages.error(request, "This is not something that a schedule can be asked to do")
        return HttpResponseRedirect(page)
    try:
        return HttpResponseRedirect(act(request, schedule) or page)
    except SchedulingError as error:
        messages.error(request, error.message)
        return HttpResponseRedirect(page)


def _run_now(request: HttpRequest, schedule: Schedule) -> str:
    run = runs.request_run_now(**_named(request, schedule), idempotency_key=once.key_of(request))
    return display.address("schedulerun_change", run.id)


def _set_enabled(request: HttpRequest, schedule: Schedule, *, enabled: bool) -> None:
    services.set_enabled(**_named(request, schedule), enabled=enabled)
    messages.success(request, f"{schedule} is {'enabled' if enabled else 'disabled'}")


def _cancel_running(request: HttpRequest, schedule: Schedule) -> None:
    count = 0
    for run_id in list(_unfinished(schedule).values_list("id", flat=True)[:MAX_CANCELLED]):
        try:
            runs.cancel_run(
                tenant_id=schedule.tenant_id, install_id=schedule.install_id, run_id=run_id, actor=actor_of(request)
            )
        except SchedulingError:  # it has ended by itself meanwhile, which is as good
            continue
        count += 1
    messages.success(request, f"{count} run{'' if count == 1 else 's'} asked to stop")


def _unfinished(schedule: Schedule) -> QuerySet[ScheduleRun]:
    rows = queries.runs_of(tenant_id=schedule.tenant_id, install_id=schedule.install_id)
    return rows.filter(schedule_id=schedule.id, status__in=UNFINISHED_STATUSES)


def _ask_to_cancel(schedule: Schedule) -> confirm.Question:
    statuses = list(_unfinished(schedule).values_list("status", flat=True)[:MAX_CANCELLED])
    return confirm.cancel_runs(running=statuses.count(RunStatus.RUNNING), waiting=statuses.count(RunStatus.QUEUED))


_QUESTIONS: Final[dict[str, Callable[[Schedule], confirm.Question]]] = {"cancel_running": _ask_to_cancel}
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
        return confirm.ask(model_admin, request, confirm.LIFT_HOLD, back=page, subject=schedule, schedules=[schedule])
    services.lift_hold(**_named(request, schedule))
    messages.success(request, "The hold is lifted, slots run again from now on")
    return HttpResponseRedirect(page)


def delete_view(model_admin: ModelAdmin[Schedule], request: HttpRequest, schedule: Schedule) -> HttpResponse:
    """Ask, and delete."""
    _require_write(request, schedule)
    if request.method != "POST" or "post" not in request.POST:
        page = display.address("schedule_page", schedule.id)
        hidden = {"post": "yes"}
        return confirm.ask(
            model_admin, request, confirm.DELETE, back=page, subject=schedule, schedules=[schedule], hidden=hidden
        )
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
        "request_key": uuid4(),
        "opts": model_admin.opts,
    }
    if request.method == "POST" and form.is_valid():
        given = form.cleaned_data
        # As typed, on the zone's clock; the form itself reads it as UTC, which is the project's zone.
        span = {name: given[name].replace(tzinfo=zone) for name in ("start", "end")}
        wanted = {**span, "one_at_a_time": given["one_at_a_time"]}
        ids: dict[str, Any] = {
            "tenant_id": schedule.tenant_id,
            "install_id": schedule.install_id,
            "schedule_id": schedule.id,
        }
        try:
            plan = runs.plan_backfill(**ids, **span)
            previewed = _digest_of(plan, wanted)
            if "confirmed" in request.POST and request.POST.get("previewed") == previewed:
                return _backfill(request, schedule, wanted, previewed=previewed)
            context |= {"plan": plan, "previewed": previewed, "is_changed": "confirmed" in request.POST}
        except InvalidFields as error:
            for name, message in error.fields.items():
                form.add_error(name if name in form.fields else None, message)
        except SchedulingError as error:
            form.add_error(None, error.message)
    return TemplateResponse(request, "admin/schedules/backfill.html", context)


def _digest_of(plan: runs.BackfillPlan, wanted: Mapping[str, Any]) -> str:
    """What a preview is recognised by: what was asked for, and what came of it by the schedule of that moment."""
    content = [{name: str(value) for name, value in wanted.items()}, [slot.isoformat() for slot in plan.slots]]
    return idempotency.digest_of(content)


def _backfill(request: HttpRequest, schedule: Schedule, wanted: Mapping[str, Any], *, previewed: str) -> HttpResponse:
    """Queue the runs; the same form sent again has queued them already."""

    def work() -> dict[str, Any]:
        return {"runs": len(runs.request_backfill(**_named(request, schedule), **wanted))}

    done = once.do_once(
        request,
        work,
        tenant_id=schedule.tenant_id,
        install_id=schedule.install_id,
        operation=f"admin backfill {schedule.id}",
        content=previewed,
    )
    messages.success(request, f"{done['runs']} runs queued; this page shows how they get on")
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
