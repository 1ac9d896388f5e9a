"""Every address that the web process answers."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", admin.site.urls),
    path("", include("schedules.urls")),
]

handler404 = "schedules.api.errors.not_found"
handler500 = "schedules.api.errors.server_error"
