"""Tenants, extensions, versions, endpoints and installs: to look at. The platform's services change them."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html_join

from schedules import audit
from schedules.admin import display, trail
from schedules.admin.base import OperatorAdmin, TenantFilter, TenantScopedAdmin, in_words, visible_tenants, words_filter
from schedules.models import (
    ApiEndpoint,
    AuditEvent,
    Extension,
    ExtensionInstall,
    ExtensionVersion,
    Tenant,
)


@admin.register(Tenant)
class TenantAdmin(TenantScopedAdmin):
    """The tenants of the user."""

    tenant_lookup = "id"
    list_display = ("name", "timezone", "id", "created_at", "places")
    search_fields = ("name", "id")

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

    list_display = ("slug", "id", "created_at")
    search_fields = ("publisher", "name", "id")


@admin.register(ExtensionVersion)
class ExtensionVersionAdmin(OperatorAdmin):
    """The published versions."""

    list_display = ("extension", "version", "content_hash", "created_at")
    list_select_related = ("extension",)
    search_fields = ("version", "extension__name", "extension__publisher")


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


@admin.register(AuditEvent)
class AuditEventAdmin(TenantScopedAdmin):
    """Who changed what."""

    list_display = ("when", "actor", "door", "done", "changed")
    list_filter = (
        TenantFilter,
        words_filter("source", [*audit.Source]),
        words_filter("subject_type", audit.SUBJECT_TYPES, title="about"),
    )
    search_fields = ("subject_id", "actor", "action")
    search_help_text = "Search by who, by what was done, or by the id of what was changed"

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
        """What was done to what."""
        return in_words(event.action.replace(".", " "))

    @admin.display(description="changed")
    def changed(self, event: AuditEvent) -> str:
        """The members that differ."""
        return ", ".join(change.member for change in trail.changes_of(event)[:6]) or display.NOTHING

    def get_fields(self, request: HttpRequest, obj: AuditEvent | None = None) -> Any:
        """All of a row, in the order of the question who, what, from, to."""
        return ("at", "actor", "source", "action", "subject_type", "subject_id", "before", "after")
