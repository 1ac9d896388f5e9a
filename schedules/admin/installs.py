"""A tenant's installed extensions: what each is, what may be scheduled of it, and switching it off and on."""

from __future__ import annotations

from typing import Any, Final

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path
from django.urls.resolvers import URLPattern
from django.utils.html import format_html

from schedules import installs, kill_switches, queries, services
from schedules.admin import confirm, display, kill_switch_pages, trail, upgrade_page
from schedules.admin.base import TenantFilter, TenantScopedAdmin, actor_of, may_write
from schedules.errors import SchedulingError
from schedules.models import ApiEndpoint, ExtensionInstall, RunStatus, Schedule, ScheduleRun

SHOWN: Final = 200


@admin.register(ExtensionInstall)
class ExtensionInstallAdmin(TenantScopedAdmin):
    """The tenant's installed extensions. Configuration may hold secrets, so only its names are shown."""

    empty_hint = "The platform installs extensions. Once one is there, its endpoints can be called on a schedule."
    list_display = ("name", "tenant", "installed_version", "state", "schedule_count", "updated")
    list_filter = (TenantFilter, "is_enabled")
    list_select_related = ("extension", "tenant", "version")
    search_fields = ("extension__name", "extension__publisher", "id")
    search_help_text = "Search by name, publisher or id"
    finds_extensions = True

    def get_queryset(self, request: HttpRequest) -> QuerySet[ExtensionInstall]:
        """Without what is secret or large, and with how many schedules each has."""
        rows = super().get_queryset(request).defer("secret_envelope", "version__manifest")
        counted = Count("schedules")
        annotated: QuerySet[ExtensionInstall] = rows.annotate(schedules_total=counted)
        return annotated

    def get_urls(self) -> list[URLPattern]:
        """What can be done to an install, before the stock addresses, which take anything."""
        wrap, here = self.admin_site.admin_view, "<uuid:install_id>"
        return [
            path(f"{here}/act/<slug:do>/", wrap(self.act_view), name="schedules_install_act"),
            path(f"{here}/upgrade/", wrap(self.upgrade_view), name="schedules_install_upgrade"),
            path(f"{here}/upgrade/<int:event_id>/", wrap(self.upgraded_view), name="schedules_install_upgraded"),
            *super().get_urls(),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The list, under the name that its readers have for it."""
        return super().changelist_view(request, {"title": "Extensions", **(extra_context or {})})

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The install's page."""
        if request.method not in {"GET", "HEAD"}:
            return HttpResponseNotAllowed(["GET", "HEAD"])
        install = self._install(request, object_id)
        ours = Q(schedules__tenant_id=install.tenant_id, schedules__install_id=install.id)
        endpoints = ApiEndpoint.objects.filter(version_id=install.version_id).order_by("path", "method")
        schedules = queries.schedules_of(tenant_id=install.tenant_id, install_id=install.id).defer("payload")
        shown = list(schedules[:SHOWN])
        for schedule in shown:
            schedule.install = install  # read already
        context = {
            **self.admin_site.each_context(request),
            "title": str(install.extension),
            "install": install,
            "endpoints": endpoints.annotate(ours=Count("schedules", filter=ours)),
            "schedules": shown,
            "config_members": sorted(install.config),
            "declared": sorted(set(install.version.capabilities) - set(install.granted_caps)),
            "may_write": may_write(request.user, tenant_id=install.tenant_id),
            "stopped": kill_switch_pages.notices(request, [kill_switches.find_over(install)]),
            "other_version": upgrade_page.button_of(install),
            "trail": trail.read_trail(tenant_id=install.tenant_id, subject_id=install.id),
            "opts": self.opts,
        }
        return TemplateResponse(request, "admin/schedules/install_page.html", context)

    def act_view(self, request: HttpRequest, install_id: Any, do: str) -> HttpResponse:
        """Ask, with what will happen spelled out, and do it."""
        install = self._install(request, str(install_id))
        if not may_write(request.user, tenant_id=install.tenant_id):
            raise PermissionDenied
        if do not in _ACTS:
            raise Http404
        page = display.address("extensioninstall_change", install.id)
        if request.method != "POST" or "confirmed" not in request.POST:
            return confirm.ask(self, request, _question(install, do), back=page, subject=install.extension)
        try:
            said = _ACTS[do](install, request)
        except SchedulingError as error:
            messages.error(request, error.message)
            return HttpResponseRedirect(page)
        messages.success(request, said)
        return HttpResponseRedirect(display.address("extensioninstall_changelist") if do == "uninstall" else page)

    def upgrade_view(self, request: HttpRequest, install_id: Any) -> HttpResponse:
        """Take it to another version."""
        return upgrade_page.upgrade_view(self, request, self._install(request, str(install_id)))

    def upgraded_view(self, request: HttpRequest, install_id: Any, event_id: int) -> HttpResponse:
        """What an upgrade has done."""
        return upgrade_page.result_view(self, request, self._install(request, str(install_id)), event_id)

    def _install(self, request: HttpRequest, object_id: str) -> ExtensionInstall:
        install_id = queries.parse_uuid(object_id)
        rows = self.get_queryset(request).select_related("extension", "tenant", "version")
        install: ExtensionInstall | None = None if install_id is None else rows.filter(id=install_id).first()
        if install is None:
            raise Http404("Extension not found")
        return install

    @admin.display(description="extension", ordering="extension__name")
    def name(self, install: ExtensionInstall) -> str:
        """What is installed."""
        return format_html('<span class="row-title">{}</span>', install.extension)

    @admin.display(description="version", ordering="version__version")
    def installed_version(self, install: ExtensionInstall) -> str:
        """The version that runs."""
        return install.version.version

    @admin.display(description="state", ordering="is_enabled")
    def state(self, install: ExtensionInstall) -> str:
        """Whether its schedules run."""
        return display.badge("Enabled", "good") if install.is_enabled else display.badge("Disabled", "quiet")

    @admin.display(description="schedules", ordering="schedules_total")
    def schedule_count(self, install: Any) -> int:
        """How many schedules it has."""
        return int(install.schedules_total)

    @admin.display(description="changed", ordering="updated_at")
    def updated(self, install: ExtensionInstall) -> str:
        """When it was last changed."""
        return display.moment(install.updated_at)


def _enable(install: ExtensionInstall, request: HttpRequest) -> str:
    installs.set_install_enabled(
        tenant_id=install.tenant_id, install_id=install.id, is_enabled=True, actor=actor_of(request)
    )
    return f"{install.extension} is enabled"


def _disable(install: ExtensionInstall, request: HttpRequest) -> str:
    installs.set_install_enabled(
        tenant_id=install.tenant_id, install_id=install.id, is_enabled=False, actor=actor_of(request)
    )
    return f"{install.extension} is disabled"


def _disable_schedules(install: ExtensionInstall, request: HttpRequest) -> str:
    disabled = services.disable_all(tenant_id=install.tenant_id, install_id=install.id, actor=actor_of(request))
    return f"{len(disabled)} schedules disabled"


def _uninstall(install: ExtensionInstall, request: HttpRequest) -> str:
    installs.delete_install(tenant_id=install.tenant_id, registry_id=install.extension_id, actor=actor_of(request))
    return f"{install.extension} is uninstalled; its runs are kept"


_ACTS: Final = {
    "enable": _enable,
    "disable": _disable,
    "disable-schedules": _disable_schedules,
    "uninstall": _uninstall,
}


def _question(install: ExtensionInstall, do: str) -> confirm.Question:
    """What will happen, with the numbers of this install."""
    schedules = Schedule.objects.filter(tenant_id=install.tenant_id, install_id=install.id)
    total, enabled = schedules.count(), schedules.filter(enabled=True).count()
    runs = ScheduleRun.objects.filter(tenant_id=install.tenant_id, schedule_id__in=schedules.values("id"))
    waiting = runs.filter(status=RunStatus.QUEUED).count()
    running = runs.filter(status=RunStatus.RUNNING).count()
    name = str(install.extension)
    if do == "enable":
        return confirm.Question(
            f"Enable {name}?",
            (f"{enabled} of its {total} schedules are enabled and run again from their next slots.",),
            "Enable",
        )
    lines: tuple[str, ...]
    if do == "disable":
        lines = (
            f"{enabled} enabled schedules stop; slots that come meanwhile are not made up for.",
            f"{running} runs in flight go on to their end; {waiting} that wait are skipped when their turn comes.",
            "Schedules and configuration stay as they are, and everything goes on once it is enabled again.",
        )
        return confirm.Question(f"Disable {name}?", lines, "Disable")
    if do == "disable-schedules":
        lines = (
            f"{enabled} enabled schedules are disabled, each for itself.",
            "The extension stays enabled. To run them again, each schedule is enabled by itself.",
        )
        return confirm.Question(f"Disable all schedules of {name}?", lines, "Disable all schedules")
    lines = (
        f"All {total} schedules are deleted, and {waiting} runs that wait are cancelled.",
        "Configuration and granted capabilities go, too. Runs and audit trail stay as long as the tenant keeps them.",
        "This cannot be undone. To stop the extension for a while, disable it instead.",
    )
    return confirm.Question(f"Uninstall {name}?", lines, "Uninstall", is_destructive=True)
