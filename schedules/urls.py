"""The addresses of the APIs."""

from __future__ import annotations

from csp import constants as csp
from csp.decorators import csp_replace
from django.urls import path
from drf_spectacular.views import SpectacularSwaggerSplitView

from schedules.api import (
    admin_views,
    host_views,
    kill_switch_views,
    registry_views,
    run_views,
    tenant_views,
    upgrade_views,
)
from schedules.api.schema import SchemaView

_EXTENSION = "api/extensions/<str:extension_ref>"
_REGISTRY = "api/internal/registry"
# Swagger UI writes styles and images into its page; the other pages' policy stays closed to both.
_DOCS_POLICY = {"style-src": [csp.SELF, csp.UNSAFE_INLINE], "img-src": [csp.SELF, "data:"]}

urlpatterns = [
    path("api/schema/", SchemaView.as_view(), name="schema"),
    path(
        "api/docs/",
        csp_replace(_DOCS_POLICY)(SpectacularSwaggerSplitView.as_view(url_name="schema")),
        name="docs",
    ),
    path(f"{_EXTENSION}/endpoints", admin_views.EndpointsView.as_view(), name="endpoints"),
    path(f"{_EXTENSION}/schedules/preview", admin_views.PreviewView.as_view(), name="preview"),
    path(f"{_EXTENSION}/schedules/disable-all", admin_views.DisableAllView.as_view(), name="disable-all"),
    path(f"{_EXTENSION}/schedules/stats", run_views.StatsView.as_view(), name="stats"),
    path(f"{_EXTENSION}/schedules", admin_views.SchedulesView.as_view(), name="schedules"),
    path(
        f"{_EXTENSION}/schedules/<str:schedule_id>",
        admin_views.ScheduleView.as_view(),
        name="schedule",
    ),
    path(
        f"{_EXTENSION}/schedules/<str:schedule_id>/lift-hold",
        admin_views.LiftHoldView.as_view(),
        name="lift-hold",
    ),
    path(
        f"{_EXTENSION}/schedules/<str:schedule_id>/run-now",
        run_views.RunNowView.as_view(),
        name="run-now",
    ),
    path(
        f"{_EXTENSION}/schedules/<str:schedule_id>/runs",
        run_views.ScheduleRunsView.as_view(),
        name="runs",
    ),
    path(
        f"{_EXTENSION}/schedules/<str:schedule_id>/backfill",
        run_views.BackfillView.as_view(),
        name="backfill",
    ),
    path(
        f"{_EXTENSION}/schedules/<str:schedule_id>/backfill/preview",
        run_views.BackfillPreviewView.as_view(),
        name="backfill-preview",
    ),
    path(f"{_EXTENSION}/runs", run_views.InstallRunsView.as_view(), name="install-runs"),
    path(f"{_EXTENSION}/runs/<str:run_id>/cancel", run_views.CancelRunView.as_view(), name="cancel-run"),
    path(f"{_EXTENSION}/runs/<str:run_id>/replay", run_views.ReplayRunView.as_view(), name="replay-run"),
    path(f"{_EXTENSION}/runs/<str:run_id>", run_views.RunView.as_view(), name="run"),
    path(f"{_EXTENSION}/upgrade/preview", upgrade_views.UpgradePreviewView.as_view(), name="upgrade-preview"),
    path("api/v1/extensions/update", upgrade_views.UpgradeView.as_view(), name="upgrade"),
    path("api/kill-switches", kill_switch_views.KillSwitchesView.as_view(), name="kill-switches"),
    path("api/kill-switches/<str:switch_id>", kill_switch_views.KillSwitchView.as_view(), name="kill-switch"),
    path("api/extensions", tenant_views.ExtensionsView.as_view(), name="extensions"),
    path("api/audit-events", tenant_views.AuditEventsView.as_view(), name="audit-events"),
    path("api/notifications", tenant_views.NotificationsView.as_view(), name="notifications"),
    path("api/tenant", tenant_views.TenantSettingsView.as_view(), name="tenant"),
    path("api/stats", tenant_views.TenantStatsView.as_view(), name="tenant-stats"),
    path("api/notification-channels", tenant_views.ChannelsView.as_view(), name="notification-channels"),
    path("api/notification-channels/<str:channel_id>", tenant_views.ChannelView.as_view(), name="notification-channel"),
    path("api/api-keys", tenant_views.ApiKeysView.as_view(), name="api-keys"),
    path("api/api-keys/<str:key_id>", tenant_views.ApiKeyView.as_view(), name="api-key"),
    path(
        "api/internal/ext-scheduler/install/<str:install_id>",
        host_views.HostApiView.as_view(),
        name="host-api",
    ),
    path(
        f"{_REGISTRY}/tenants/<str:tenant_id>",
        registry_views.TenantView.as_view(),
        name="registry-tenant",
    ),
    path(
        f"{_REGISTRY}/tenants/<str:tenant_id>/installs/<str:registry_id>",
        registry_views.TenantInstallView.as_view(),
        name="registry-install",
    ),
    path(
        f"{_REGISTRY}/extensions/<str:registry_id>",
        registry_views.ExtensionView.as_view(),
        name="registry-extension",
    ),
    path(
        f"{_REGISTRY}/extensions/<str:registry_id>/versions/<str:version>",
        registry_views.VersionView.as_view(),
        name="registry-version",
    ),
]
