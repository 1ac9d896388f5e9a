"""Runs: to look at, to stop and to repeat."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.db.models.expressions import RawSQL
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path
from django.urls.resolvers import URLPattern
from django.utils.html import format_html

from schedules import queries, runs, temporal
from schedules.admin import confirm, display, once, run_page, schedule_page
from schedules.admin.base import (
    ScopedList,
    TenantFilter,
    TenantScopedAdmin,
    act_on_each,
    actor_of,
    in_words,
    is_superuser,
    may_write,
    selects_all,
    visible_tenants,
    words_filter,
)
from schedules.errors import SchedulingError
from schedules.models import UNFINISHED_STATUSES, ExtensionInstall, RunStatus, Schedule, ScheduleRun

MAX_FITTING = 100
# For each tenant by itself, because every index of runs begins with the tenant. The newest of all are among them.
_NEWEST_OF_EACH_TENANT = """
SELECT newest.id FROM schedules_tenant AS tenant, LATERAL (
    SELECT id FROM schedules_schedulerun WHERE tenant_id = tenant.id ORDER BY slot DESC, id DESC LIMIT %s
) AS newest
"""


def _is_list(request: HttpRequest) -> bool:
    match = request.resolver_match
    return match is not None and match.url_name == "schedules_schedulerun_changelist"


def _chosen_tenant(request: HttpRequest) -> UUID | None:
    """The tenant that the list is filtered by, read as the filter reads it."""
    return queries.parse_uuid(request.GET.get("tenant", ""))


def _lists_every_tenant(request: HttpRequest) -> bool:
    """Whether an operator looks at the list of all tenants' runs, where a page is all that is shown."""
    narrowed = _chosen_tenant(request) is not None or request.GET.get("q", "").strip()
    return _is_list(request) and is_superuser(request.user) and not narrowed


class RunList(ScopedList):
    """Reads of which schedules the runs of one page are in one statement."""

    def get_results(self, request: HttpRequest) -> None:
        """The rows of one page of the list, with their schedules."""
        super().get_results(request)
        _attach_schedules(self.result_list)


def _attach_schedules(rows: Any) -> None:
    """Let each run know its schedule as ``listed_schedule``; None where that was deleted."""
    schedules = Schedule.objects.filter(id__in={run.schedule_id for run in rows})
    named = {
        (schedule.tenant_id, schedule.id): schedule
        for schedule in schedules.only("tenant_id", "name", "endpoint_method", "endpoint_path", "cron")
    }
    for run in rows:
        run.listed_schedule = named.get((run.tenant_id, run.schedule_id))


def _schedule_of(run: ScheduleRun) -> Schedule | None:
    rows = Schedule.objects.select_related("install").defer("install__config", "install__secret_envelope")
    return rows.filter(tenant_id=run.tenant_id, id=run.schedule_id).first()


@admin.register(ScheduleRun)
class ScheduleRunAdmin(TenantScopedAdmin):
    """What became of each slot and each request."""

    list_display = ("due_at", "state", "of", "why", "attempts", "answer", "took", "late")
    list_filter = (TenantFilter, words_filter("status", RunStatus.values))
    # Sorting a million rows by what no index has takes longer than anybody waits.
    sortable_by = ("due_at",)
    search_fields = ("id",)
    search_help_text = "Search by a part of the schedule's name or path, by extension, run id or schedule id"
    actions = ("cancel", "replay")
    change_list_template = "admin/schedules/run_list.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[ScheduleRun]:
        """Without what is large; a run's own page reads it when it shows it."""
        rows = self._visible(request)
        if _lists_every_tenant(request):
            return rows.filter(id__in=RawSQL(_NEWEST_OF_EACH_TENANT, [self.list_per_page]))  # noqa: S611 - a constant
        if _is_list(request) and is_superuser(request.user) and (chosen := _chosen_tenant(request)) is not None:
            # Here and not by the filter alone, which a platform with one tenant does not have.
            return rows.filter(tenant_id=chosen)
        return rows

    def _visible(self, request: HttpRequest) -> QuerySet[ScheduleRun]:
        return super().get_queryset(request).defer("payload", "response_text", "attempt_log")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """Our list."""
        return RunList

    def response_action(self, request: HttpRequest, queryset: QuerySet[ScheduleRun], *more: Any, **named: Any) -> Any:
        """Do it to the selected runs, also where newer ones have taken their place in the list meanwhile."""
        if _lists_every_tenant(request) and not selects_all(request):
            queryset = self._visible(request)
        return super().response_action(request, queryset, *more, **named)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[ScheduleRun], search_term: str
    ) -> tuple[QuerySet[ScheduleRun], bool]:
        """By id, or by the schedules that fit. Looking into each of a million runs takes longer than anybody waits."""
        text = search_term.strip()
        if not text:
            return queryset, False
        schedules, installs = Schedule.objects.all(), ExtensionInstall.objects.all()
        if (tenants := visible_tenants(request.user)) is not None:
            schedules, installs = schedules.filter(tenant_id__in=tenants), installs.filter(tenant_id__in=tenants)
        if (identifier := queries.parse_uuid(text)) is not None:
            # With its tenant where it is a schedule's, because the index of a schedule's runs begins with that.
            tenant_id = schedules.filter(id=identifier).values_list("tenant_id", flat=True).first()
            if tenant_id is not None:
                return queryset.filter(tenant_id=tenant_id, schedule_id=identifier), False
            return queryset.filter(id=identifier), False
        fitting = queries.filter_schedules(schedules, search=text).values_list("tenant_id", "id")[:MAX_FITTING]
        owners: dict[UUID, list[UUID]] = {}
        for tenant_id, schedule_id in fitting:
            owners.setdefault(tenant_id, []).append(schedule_id)
        found = Q()
        for tenant_id, ids in owners.items():
            found |= Q(tenant_id=tenant_id, schedule_id__in=ids)
        if queries.words_of_extension(text):
            named = installs.filter(queries.fits_extension(text, at="extension__")).values_list("tenant_id", "id")
            for tenant_id, install_id in named[:MAX_FITTING]:
                found |= Q(tenant_id=tenant_id, install_id=install_id)
        return (queryset.filter(found) if found else queryset.none()), False

    def get_urls(self) -> list[URLPattern]:
        """What a run can be asked to do, before the stock addresses, which take anything."""
        act = path("<uuid:run_id>/act/", self.admin_site.admin_view(self.act_view), name="schedules_schedulerun_act")
        return [act, *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The list, with a word on what is left out of it."""
        return super().changelist_view(
            request, {"of_every_tenant": _lists_every_tenant(request), **(extra_context or {})}
        )

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The run's page."""
        if request.method not in {"GET", "HEAD"}:
            return HttpResponseNotAllowed(["GET", "HEAD"])
        run = self._run(request, object_id)
        schedule = _schedule_of(run)
        writes = may_write(request.user, tenant_id=run.tenant_id)
        is_over = run.status not in UNFINISHED_STATUSES
        call = run_page.last_call(run)
        may_replay = writes and is_over and schedule is not None
        context = {
            **self.admin_site.each_context(request),
            "title": f"Run {display.short_id(run.id)}",
            "run": run,
            "schedule": schedule,
            "attempts": run_page.read_attempts(run),
            "is_live": not is_over,
            "may_cancel": writes and not is_over and run.cancel_requested_at is None,
            "may_replay": may_replay,
            "refusal": schedule_page.refusal_of(schedule) if may_replay and schedule else "",
            "request_key": uuid4(),
            "curl": call.command if call else "",
            "idempotency_key": call.idempotency_key if call else "",
            "workflow_url": temporal.workflow_url(run.workflow_id),
            "payload": run_page.readable(run.payload),
            "opts": self.opts,
        }
        return TemplateResponse(request, "admin/schedules/run_page.html", context)

    def act_view(self, request: HttpRequest, run_id: Any) -> HttpResponse:
        """Stop the run, or run it again."""
        run = self._run(request, str(run_id))
        page = display.address("schedulerun_change", run.id)
        if request.method != "POST":
            # Whoever had to sign in on the way comes back by GET.
            return HttpResponseRedirect(page)
        if not may_write(request.user, tenant_id=run.tenant_id):
            raise PermissionDenied
        do = request.POST.get("do")
        if do == "cancel" and run.status in UNFINISHED_STATUSES and "confirmed" not in request.POST:
            is_running = run.status == RunStatus.RUNNING
            question = confirm.cancel_runs(running=int(is_running), waiting=int(not is_running))
            subject = f"Run {display.short_id(run.id)}"
            return confirm.ask(self, request, question, back=page, subject=subject, hidden={"do": "cancel"})
        ids: dict[str, Any] = {
            "tenant_id": run.tenant_id,
            "install_id": run.install_id,
            "run_id": run.id,
            "actor": actor_of(request),
        }
        try:
            if do == "cancel":
                runs.cancel_run(**ids)
                messages.success(request, "The run was asked to stop")
            elif do == "replay":
                again = runs.replay_run(**ids, idempotency_key=once.key_of(request))
                page = display.address("schedulerun_change", again.id)
                messages.success(request, "This is the new run")
        except SchedulingError as error:
            messages.error(request, error.message)
        return HttpResponseRedirect(page)

    def _run(self, request: HttpRequest, object_id: str) -> ScheduleRun:
        run: ScheduleRun | None = self.get_object(request, object_id)
        if run is None:
            raise Http404("Run not found")
        return run

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        """Whoever may write in any tenant; which runs is checked for each."""
        return may_write(request.user)

    @admin.action(description="Cancel", permissions=["cancel"])
    def cancel(self, request: HttpRequest, rows: QuerySet[ScheduleRun]) -> TemplateResponse | None:
        """Stop each, once that is confirmed."""
        if "confirmed" in request.POST:
            act_on_each(request, rows, runs.cancel_run, done="asked to stop")
            return None
        unfinished = list(rows.filter(status__in=UNFINISHED_STATUSES))
        if not unfinished:
            messages.info(request, "Nothing to cancel: each of the selected runs has ended already")
            return None
        _attach_schedules(unfinished)
        running = sum(run.status == RunStatus.RUNNING for run in unfinished)
        question = confirm.cancel_runs(running=running, waiting=len(unfinished) - running)
        context = {
            **self.admin_site.each_context(request),
            "title": question.title,
            "question": question,
            "runs": unfinished,
            "hidden": {"action": "cancel"},
            "back": display.address("schedulerun_changelist"),
            "opts": self.opts,
        }
        return TemplateResponse(request, "admin/schedules/cancel_runs.html", context)

    @admin.action(description="Run again", permissions=["cancel"])
    def replay(self, request: HttpRequest, rows: QuerySet[ScheduleRun]) -> None:
        """Run each again with the payload that it had."""
        act_on_each(request, rows, runs.replay_run, done="asked to run again")

    @admin.display(description="slot", ordering="slot")
    def due_at(self, run: ScheduleRun) -> str:
        """When it was due."""
        return format_html('<span class="row-title">{}</span>', display.moment(run.slot))

    @admin.display(description="status", ordering="status")
    def state(self, run: ScheduleRun) -> str:
        """The state, and why."""
        return format_html(
            '{} <span class="row-detail">{}</span>', display.status_badge(run.status), run.reason or run.error[:80]
        )

    @admin.display(description="trigger", ordering="trigger")
    def why(self, run: ScheduleRun) -> str:
        """Why it exists."""
        return in_words(run.trigger)

    @admin.display(description="schedule")
    def of(self, run: Any) -> str:
        """Whose run it is, and what was called."""
        schedule, called = run.listed_schedule, f"{run.endpoint_method} {run.endpoint_path}".strip()
        if schedule is None:
            return format_html('Deleted <span class="row-detail">{}</span>', called)
        name = display.link("schedule_page", schedule.id, schedule)
        return format_html('{} <span class="row-detail">{}</span>', name, called)

    @admin.display(description="answer")
    def answer(self, run: ScheduleRun) -> int | str:
        """The status that came back."""
        return display.NOTHING if run.http_status is None else run.http_status

    @admin.display(description="took")
    def took(self, run: ScheduleRun) -> str:
        """From the first attempt to the end."""
        return display.milliseconds(run.duration_ms)

    @admin.display(description="late by")
    def late(self, run: ScheduleRun) -> str:
        """From the slot to the first attempt."""
        return display.milliseconds(run.lateness_ms)
