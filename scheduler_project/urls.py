"""Every address that the web process answers."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from schedules.api import operator_views

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", admin.site.urls),
    path("metrics", operator_views.metrics_view, name="metrics"),
    path("healthz", operator_views.health_view, name="healthz"),
    path("readyz", operator_views.readiness_view, name="readyz"),
    path("api/status", operator_views.status_view, name="status"),
    path("", include("schedules.urls")),
]

handler400 = "schedules.api.errors.bad_request"
handler403 = "schedules.api.errors.forbidden"
handler404 = "schedules.api.errors.not_found"
handler500 = "schedules.api.errors.server_error"
