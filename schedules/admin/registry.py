"""Tenants, extensions, versions, endpoints and installs: to look at. The platform's services change them."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from schedules import queries
from schedules.admin.base import OperatorAdmin, TenantScopedAdmin
from schedules.models import (
    ApiEndpoint,
    AuditEvent,
    Extension,
    ExtensionInstall,
    ExtensionVersion,
    Tenant,
    TenantMembership,
)


@admin.register(Tenant)
class TenantAdmin(TenantScopedAdmin):
    """The tenants of the user."""

    tenant_lookup = "id"
    list_display = ("name", "timezone", "id", "created_at")
    search_fields = ("name", "id")


@admin.register(TenantMembership)
class TenantMembershipAdmin(OperatorAdmin):
    """Who works in which tenant. Operators decide that."""

    list_display = ("user", "tenant", "role", "is_active")
    list_filter = ("role", "is_active")
    search_fields = ("user__username", "tenant__name")
    list_select_related = ("user", "tenant")

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Operators add members."""
        return self.has_module_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: TenantMembership | None = None) -> bool:
        """Operators change members."""
        return self.has_module_permission(request)

    def has_delete_permission(self, request: HttpRequest, obj: TenantMembership | None = None) -> bool:
        """Operators remove members."""
        return self.has_module_permission(request)


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
        tenants = queries.visible_tenants(request.user)
        if tenants is None:
            return rows
        installed = ExtensionInstall.objects.filter(tenant_id__in=tenants).values("version_id")
        return rows.filter(version_id__in=installed)


@admin.register(ExtensionInstall)
class ExtensionInstallAdmin(TenantScopedAdmin):
    """The tenant's installed extensions. Configuration may hold secrets, so only its names are shown."""

    list_display = ("extension", "tenant", "installed_version", "is_enabled", "updated_at")
    list_filter = ("is_enabled",)
    list_select_related = ("extension", "tenant", "version")
    search_fields = ("extension__name", "extension__publisher", "id")
    fields = (
        "id",
        "tenant",
        "extension",
        "installed_version",
        "is_enabled",
        "granted_caps",
        "config_members",
        "created_at",
        "updated_at",
    )
    readonly_fields = fields

    @admin.display(description="version", ordering="version__version")
    def installed_version(self, install: ExtensionInstall) -> str:
        """The version that runs."""
        return install.version.version

    @admin.display(description="configuration")
    def config_members(self, install: ExtensionInstall) -> str:
        """The names of what is configured, without the values."""
        return ", ".join(sorted(install.config)) or "nothing"


@admin.register(AuditEvent)
class AuditEventAdmin(TenantScopedAdmin):
    """Who changed what."""

    list_display = ("at", "actor", "source", "action", "subject_type", "subject_id")
    list_filter = ("source", "action")
    search_fields = ("subject_id", "actor")

    def get_fields(self, request: HttpRequest, obj: AuditEvent | None = None) -> Any:
        """All of a row, in the order of the question who, what, from, to."""
        return ("at", "actor", "source", "action", "subject_type", "subject_id", "before", "after")
