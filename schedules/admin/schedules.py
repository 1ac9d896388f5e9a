"""Schedules: the list, the form's saving, and the addresses of a schedule's pages."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.db.models import Exists, OuterRef, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path
from django.urls.resolvers import URLPattern
from django.utils.html import format_html

from schedules import overview, queries, runs, services
from schedules.admin import confirm, display, kill_switch_pages, schedule_actions, schedule_page
from schedules.admin.base import (
    ScopedList,
    TenantFilter,
    TenantScopedAdmin,
    act_on_each,
    actor_of,
    may_write,
    visible_tenants,
    words_filter,
)
from schedules.admin.schedule_form import POLICY_FIELDS, ScheduleForm
from schedules.errors import NotFound, SchedulingError
from schedules.models import ApiEndpoint, ExtensionInstall, RunStatus, Schedule

MAX_INSTALLS_OFFERED = 200


class AttentionFilter(admin.SimpleListFilter):
    """The reasons to look at a schedule that the home page knows."""

    title = "attention"
    parameter_name = "attention"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """The reasons."""
        return [(kind.name, kind.title) for kind in overview.KINDS]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Schedule]) -> QuerySet[Schedule]:
        """The schedules that one reason is about."""
        if self.value() not in {kind.name for kind in overview.KINDS}:
            return queryset
        return queryset.filter(overview.condition(str(self.value()), now=datetime.now(UTC)))


class ScheduleList(ScopedList):
    """Leads to the schedules' pages instead of their forms, and reads how long the last runs took in one statement."""

    def url_for_result(self, result: Any) -> str:
        """The page."""
        return display.address("schedule_page", result.pk)

    def get_results(self, request: HttpRequest) -> None:
        """The rows of one page of the list, with how long their last runs took."""
        super().get_results(request)
        durations = overview.last_durations(self.result_list)
        for row in self.result_list:
            row.last_duration_ms = durations.get(row.id)


@admin.register(Schedule)
class ScheduleAdmin(TenantScopedAdmin):
    """The schedules of the user's tenants."""

    form = ScheduleForm
    list_display = ("title", "extension", "due", "state", "last_run", "next_slot", "mirror")
    list_filter = (
        AttentionFilter,
        TenantFilter,
        "enabled",
        words_filter("last_run_status", RunStatus.values, title="last run"),
        # The plain filter would offer every tenant's extensions.
        ("install__extension", admin.RelatedOnlyFieldListFilter),
    )
    list_select_related = ("install__extension", "install__tenant")
    search_fields = (
        "name",
        "endpoint_path",
        "install__extension__publisher",
        "install__extension__name",
        "cron",
        "id",
    )
    finds_extensions = True
    search_help_text = "Search by name, path, extension, expression or id"
    actions = ("enable", "disable", "run_now", "lift_hold", "delete_through_service")
    change_list_template = "admin/schedules/schedule_list.html"
    change_form_template = "admin/schedules/schedule_form.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Schedule]:
        """Without what a list has no use for and a secret may be in."""
        return super().get_queryset(request).defer("install__config", "install__secret_envelope")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """Our list."""
        return ScheduleList

    def get_urls(self) -> list[URLPattern]:
        """A schedule's pages before the stock ones, whose address takes anything."""

        def page(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
            def inner(request: HttpRequest, schedule_id: UUID) -> HttpResponse:
                schedule = self.get_object(request, str(schedule_id))
                if schedule is None:
                    raise Http404("Schedule not found")
                return self._told(view, request, schedule)

            return self.admin_site.admin_view(inner)

        own = [
            path("preview/", self.admin_site.admin_view(self.preview_view), name="schedules_schedule_preview"),
            path("<uuid:schedule_id>/", page(schedule_page.schedule_view), name="schedules_schedule_page"),
            path("<uuid:schedule_id>/act/", page(schedule_actions.act_view), name="schedules_schedule_act"),
            path(
                "<uuid:schedule_id>/backfill/", page(schedule_actions.backfill_view), name="schedules_schedule_backfill"
            ),
            path(
                "<uuid:schedule_id>/lift-hold/", page(schedule_actions.lift_hold_view), name="schedules_schedule_hold"
            ),
        ]
        return [*own, *super().get_urls()]

    def preview_view(self, request: HttpRequest) -> HttpResponse:
        """The preview beside the form, as a part of a page."""
        return schedule_page.preview_view(request)

    # --- who may

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Whoever may write in any tenant."""
        return may_write(request.user)

    def has_change_permission(self, request: HttpRequest, obj: Schedule | None = None) -> bool:
        """Whoever may write in the schedule's tenant."""
        return may_write(request.user, tenant_id=obj.tenant_id if obj else None)

    def has_delete_permission(self, request: HttpRequest, obj: Schedule | None = None) -> bool:
        """Whoever may write in the schedule's tenant."""
        return self.has_change_permission(request, obj)

    # --- the list

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The list, with what to do where it is empty."""
        installs = _installs_of(request)
        schedulable = ApiEndpoint.objects.filter(version_id=OuterRef("version_id"), schedulable=True)
        context = {
            "stopped": kill_switch_pages.notices(
                request, kill_switch_pages.over_installs(visible_tenants(request.user))
            ),
            "without_endpoint": list(
                installs.filter(~Exists(schedulable)).select_related("extension", "version", "tenant")[:5]
            ),
            "has_installs": installs.exists(),
        }
        return super().changelist_view(request, context | (extra_context or {}))

    def get_actions(self, request: HttpRequest) -> Any:
        """Ours alone: the stock deletion goes past the services."""
        actions = super().get_actions(request)
        actions.pop("delete_selected", None)
        return actions

    @admin.action(description="Enable", permissions=["change"])
    def enable(self, request: HttpRequest, rows: QuerySet[Schedule]) -> None:
        """Enable each."""
        act_on_each(request, rows, lambda **ids: services.set_enabled(enabled=True, **ids), done="enabled")

    @admin.action(description="Disable", permissions=["change"])
    def disable(self, request: HttpRequest, rows: QuerySet[Schedule]) -> None:
        """Disable each."""
        act_on_each(request, rows, lambda **ids: services.set_enabled(enabled=False, **ids), done="disabled")

    @admin.action(description="Run now", permissions=["change"])
    def run_now(self, request: HttpRequest, rows: QuerySet[Schedule]) -> None:
        """Ask for a run of each."""
        act_on_each(request, rows, runs.request_run_now, done="asked to run")

    @admin.action(description="Lift the operator's hold", permissions=["change"])
    def lift_hold(self, request: HttpRequest, rows: QuerySet[Schedule]) -> TemplateResponse | None:
        """Lift the pause that an operator set in Temporal on each, once that is confirmed."""
        if "confirmed" not in request.POST:
            return self._ask(request, rows.filter(held_since__isnull=False), confirm.LIFT_HOLD)
        act_on_each(request, rows, services.lift_hold, done="released from hold")
        return None

    @admin.action(description="Delete", permissions=["delete"])
    def delete_through_service(self, request: HttpRequest, rows: QuerySet[Schedule]) -> TemplateResponse | None:
        """Delete each, once that is confirmed."""
        if "confirmed" not in request.POST:
            return self._ask(request, rows, confirm.DELETE)
        act_on_each(request, rows, services.delete_schedule, done="deleted")
        return None

    def _ask(
        self, request: HttpRequest, rows: QuerySet[Schedule], question: confirm.Question
    ) -> TemplateResponse | None:
        """The page that asks before the selected rows are done something to."""
        schedules = list(rows)
        if not schedules:
            messages.info(request, "None of the selected schedules needs it")
            return None
        return confirm.ask(
            self,
            request,
            question,
            back=display.address("schedule_changelist"),
            schedules=schedules,
            hidden={"action": request.POST["action"]},
            selected=True,
        )

    @admin.display(description="schedule", ordering="name")
    def title(self, schedule: Schedule) -> str:
        """The name, or what stands for one, and what is called."""
        return format_html(
            '<span class="row-title">{}</span> <span class="row-detail">{} {}</span>',
            schedule.name or "Without a name",
            schedule.endpoint_method,
            schedule.endpoint_path,
        )

    @admin.display(description="extension", ordering="install__extension__name")
    def extension(self, schedule: Schedule) -> str:
        """Whose endpoint it is, and whose schedule."""
        return format_html(
            '{} <span class="row-detail">{}</span>',
            display.link("extensioninstall_change", schedule.install_id, schedule.install.extension),
            schedule.install.tenant,
        )

    @admin.display(description="due", ordering="cron")
    def due(self, schedule: Schedule) -> str:
        """The expression in words, and as it is."""
        return format_html(
            '{} <span class="row-detail"><code>{}</code> {}</span>',
            display.cron_words(schedule.cron),
            schedule.cron,
            schedule.timezone,
        )

    @admin.display(description="state", ordering="enabled")
    def state(self, schedule: Schedule) -> str:
        """Enabled, disabled, paused by the platform, or with its extension."""
        return schedule_page.state_badge(schedule)

    @admin.display(description="last run", ordering="last_run_at")
    def last_run(self, schedule: Any) -> str:
        """How the last run ended, when, and how long it took."""
        if schedule.last_run_at is None:
            return "No run yet"
        return format_html(
            '{} <span class="row-detail">{}, {}</span>',
            display.status_badge(schedule.last_run_status),
            display.moment(schedule.last_run_at),
            display.milliseconds(schedule.last_duration_ms),
        )

    @admin.display(description="next slot", ordering="next_slot_at")
    def next_slot(self, schedule: Schedule) -> str:
        """When it is due next."""
        if schedule.held_since is not None:
            return display.NOTHING
        now = datetime.now(UTC)
        slot = queries.next_slot_of(schedule, after=now, install_enabled=schedule.install.is_enabled)
        return display.moment(slot, relative=True, now=now)

    @admin.display(description="sync")
    def mirror(self, schedule: Schedule) -> str:
        """Whether Temporal shows what this row says, in a word."""
        return display.sync_badge(schedule)

    # --- the form

    def get_form(self, request: HttpRequest, obj: Schedule | None = None, change: bool = False, **kwargs: Any) -> Any:  # noqa: FBT001, FBT002
        """The form, which needs to know who asks, and for a new schedule of which extension."""
        form = super().get_form(request, obj, change=change, **kwargs)
        install = None if obj is not None else _chosen_install(request)
        return type(form.__name__, (form,), {"request": request, "fixed_install": install})

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """What is called, when, with what; the policies folded away."""
        hidden = () if obj is None else ("seen_revision",)
        return (
            ("What", {"fields": ("install" if obj is None else "extension", "endpoint", "name", "enabled", *hidden)}),
            ("When", {"fields": ("cron", "timezone")}),
            ("Payload", {"fields": ("payload",)}),
            ("Policies", {"fields": POLICY_FIELDS, "classes": ["collapse"]}),
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Schedule | None = None) -> Any:
        """A schedule stays with its install."""
        return () if obj is None else ("extension",)

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The empty form; first the choice of an extension, where there are several."""
        if request.method == "GET" and self.has_add_permission(request) and _chosen_install(request) is None:
            installs = _installs_of(request).select_related("extension", "tenant", "version")
            search = request.GET.get("q", "").replace("\x00", "")
            context = {
                **self.admin_site.each_context(request),
                "title": "New schedule",
                "installs": installs.filter(queries.fits_extension(search, at="extension__"))[:MAX_INSTALLS_OFFERED],
                "search": search,
                "opts": self.opts,
            }
            return TemplateResponse(request, "admin/schedules/choose_install.html", context)
        return super().add_view(request, form_url, {"title": "New schedule", **(extra_context or {})})

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Ask, and delete through the service."""
        schedule = self.get_object(request, object_id)
        if schedule is None:
            raise Http404("Schedule not found")
        return self._told(schedule_actions.delete_view, request, schedule)

    def _told(self, view: Callable[..., HttpResponse], request: HttpRequest, schedule: Schedule) -> HttpResponse:
        """What the view answers, or what a service refused: somebody else was quicker."""
        try:
            return view(self, request, schedule)
        except SchedulingError as error:
            if request.method != "POST":
                raise
            messages.error(request, f"{schedule}: {error.message}")
            if isinstance(error, NotFound):
                return HttpResponseRedirect(display.address("schedule_changelist"))
            return HttpResponseRedirect(display.address("schedule_page", schedule.id))

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:  # noqa: FBT001
        """Write through the service."""
        install = obj.install if change else form.cleaned_data["install"]
        if change:
            saved = services.update_schedule(
                tenant_id=install.tenant_id,
                install_id=install.id,
                schedule_id=obj.id,
                changes=form.changes(),
                expected_revisions=form.expected_revisions(),
                actor=actor_of(request),
            )
        else:
            saved = form.create(install, actor=actor_of(request))
        obj.__dict__.update(saved.__dict__)

    def response_add(self, request: HttpRequest, obj: Schedule, post_url_continue: str | None = None) -> HttpResponse:
        """Go to the new schedule's page."""
        messages.success(request, f"{obj} was created")
        return HttpResponseRedirect(display.address("schedule_page", obj.pk))

    def response_change(self, request: HttpRequest, obj: Schedule) -> HttpResponse:
        """Go back to the schedule's page."""
        messages.success(request, f"{obj} was saved")
        return HttpResponseRedirect(display.address("schedule_page", obj.pk))


def _installs_of(request: HttpRequest) -> QuerySet[ExtensionInstall]:
    rows = ExtensionInstall.objects.defer("config", "secret_envelope")
    tenants = visible_tenants(request.user)
    return rows if tenants is None else rows.filter(tenant_id__in=tenants)


def _chosen_install(request: HttpRequest) -> ExtensionInstall | None:
    """The extension that a new schedule is to be of: the one that is named, or the only one there is."""
    installs = _installs_of(request).select_related("extension", "tenant", "version")
    named = request.POST.get("install") or request.GET.get("install")
    if named is None:
        found = list(installs[:2])
        return found[0] if len(found) == 1 else None
    install_id = queries.parse_uuid(named)
    install = None if install_id is None else installs.filter(id=install_id).first()
    if install is None and request.method == "GET":
        raise Http404("Extension not found")
    return install
