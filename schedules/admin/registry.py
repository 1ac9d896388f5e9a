"""Tenants, extensions, versions, endpoints and installs: to look at. The platform's services change them."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import F, Q, QuerySet, Value
from django.db.models.functions import Replace
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.template.response import TemplateResponse
from django.utils.html import format_html_join

from schedules import audit, queries
from schedules.admin import display, trail
from schedules.admin.base import (
    OperatorAdmin,
    ScopedList,
    TenantFilter,
    TenantScopedAdmin,
    in_words,
    is_superuser,
    visible_tenants,
    words_filter,
)
from schedules.models import (
    ApiEndpoint,
    AuditEvent,
    Extension,
    ExtensionInstall,
    ExtensionVersion,
    Tenant,
)

# Characters of a value on an event's own page.
MAX_SHOWN = 20_000


@admin.register(Tenant)
class TenantAdmin(TenantScopedAdmin):
    """The tenants of the user."""

    tenant_lookup = "id"
    list_display = ("name", "timezone", "id", "created", "places")
    search_fields = ("name", "id")

    @admin.display(description="created", ordering="created_at")
    def created(self, tenant: Tenant) -> str:
        """When it came."""
        return display.moment(tenant.created_at)

    @admin.display(description="see its")
    def places(self, tenant: Tenant) -> str:
        """The lists of what is this tenant's alone."""
        lists = (
            ("Schedules", "schedule_changelist"),
            ("Runs", "schedulerun_changelist"),
            ("Extensions", "extensioninstall_changelist"),
            ("API keys", "apikey_changelist"),
            ("Audit trail", "auditevent_changelist"),
        )
        links = ((display.address(name), tenant.id, text) for text, name in lists)
        return format_html_join(", ", '<a href="{}?tenant={}">{}</a>', links)


@admin.register(Extension)
class ExtensionAdmin(OperatorAdmin):
    """The registry."""

    list_display = ("slug", "id", "created")
    search_fields = ("publisher", "name", "id")
    finds_extensions = True

    @admin.display(description="created", ordering="created_at")
    def created(self, extension: Extension) -> str:
        """When it came."""
        return display.moment(extension.created_at)


@admin.register(ExtensionVersion)
class ExtensionVersionAdmin(OperatorAdmin):
    """The published versions."""

    list_display = ("extension", "version", "content_hash", "created")
    list_select_related = ("extension",)
    search_fields = ("version", "extension__name", "extension__publisher")

    @admin.display(description="created", ordering="created_at")
    def created(self, version: ExtensionVersion) -> str:
        """When it was published."""
        return display.moment(version.created_at)


@admin.register(ApiEndpoint)
class ApiEndpointAdmin(TenantScopedAdmin):
    """The endpoints of installed versions."""

    list_display = ("method", "path", "version", "schedulable", "unschedulable_reason")
    list_filter = ("schedulable", "method")
    list_select_related = ("version__extension",)
    search_fields = ("path",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiEndpoint]:
        """The endpoints of the versions that the user's tenants have installed."""
        rows = admin.ModelAdmin.get_queryset(self, request)
        tenants = visible_tenants(request.user)
        if tenants is None:
            return rows
        installed = ExtensionInstall.objects.filter(tenant_id__in=tenants).values("version_id")
        return rows.filter(version_id__in=installed)


class AuditList(ScopedList):
    """Reads what the events of one page are about in one statement."""

    def get_results(self, request: HttpRequest) -> None:
        """The rows of one page of the list, with what they are about."""
        super().get_results(request)
        trail.name_subjects(self.result_list, for_operator=is_superuser(request.user))


@admin.register(AuditEvent)
class AuditEventAdmin(TenantScopedAdmin):
    """Who changed what."""

    list_display = ("when", "actor", "door", "done", "about", "changed")
    # Sorting a long trail by what no index has takes longer than anybody waits.
    sortable_by = ("when",)
    list_filter = (
        TenantFilter,
        words_filter("source", [*audit.Source]),
        words_filter("subject_type", audit.SUBJECT_TYPES, title="about"),
    )
    search_fields = ("subject_id", "actor", "action")
    search_help_text = "Search by the beginning of who or of what was done, or by the id of what was changed"

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """Our list."""
        return AuditList

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[AuditEvent], search_term: str
    ) -> tuple[QuerySet[AuditEvent], bool]:
        """By the id of what was changed, or by how the actor or the action begins."""
        text = search_term.strip()
        if not text:
            return queryset, False
        if (subject_id := queries.parse_uuid(text)) is not None:
            return queryset.filter(subject_id=subject_id), False
        # As the page writes it: "Kill switch engaged" is kill_switch.engaged.
        words = Replace(Replace(F("action"), Value("."), Value(" ")), Value("_"), Value(" "))
        begins = Q(actor__istartswith=text) | Q(action__istartswith=text) | Q(action_words__istartswith=text)
        return queryset.alias(action_words=words).filter(begins), False

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The event's page."""
        if request.method not in {"GET", "HEAD"}:
            return HttpResponseNotAllowed(["GET", "HEAD"])
        event: Any = self.get_object(request, object_id)
        if event is None:
            raise Http404("Event not found")
        trail.name_subjects([event], for_operator=is_superuser(request.user))
        context = {
            **self.admin_site.each_context(request),
            "title": f"{self.done(event)} by {event.actor}",
            "event": event,
            "changes": trail.changes_of(event, longest=MAX_SHOWN),
            "opts": self.opts,
        }
        return TemplateResponse(request, "admin/schedules/audit_event.html", context)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The list, under the name that the navigation has for it."""
        return super().changelist_view(request, {"title": "Audit trail", **(extra_context or {})})

    @admin.display(description="when", ordering="at")
    def when(self, event: AuditEvent) -> str:
        """When it was done."""
        return display.moment(event.at)

    @admin.display(description="through", ordering="source")
    def door(self, event: AuditEvent) -> str:
        """The door that it came through."""
        return in_words(event.source)

    @admin.display(description="done", ordering="action")
    def done(self, event: AuditEvent) -> str:
        """What was done."""
        return in_words(trail.words_of(event))

    @admin.display(description="about")
    def about(self, event: Any) -> str:
        """To what it was done."""
        return str(event.about)

    @admin.display(description="changed")
    def changed(self, event: AuditEvent) -> str:
        """The fields that differ."""
        return ", ".join(change.member for change in trail.changes_of(event)[:6]) or display.NOTHING
