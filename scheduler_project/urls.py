"""Every address that the web process answers."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from schedules.api.operator_views import metrics_view

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", admin.site.urls),
    path("metrics", metrics_view, name="metrics"),
    path("", include("schedules.urls")),
]

handler400 = "schedules.api.errors.bad_request"
handler403 = "schedules.api.errors.forbidden"
handler404 = "schedules.api.errors.not_found"
handler500 = "schedules.api.errors.server_error"
