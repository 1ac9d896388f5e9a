"""The Django application of schedules."""

from __future__ import annotations

from django.apps import AppConfig
from django.contrib.admin import apps as admin_apps


class SchedulesConfig(AppConfig):
    """Registers the app; a wrong Temporal profile stops every process here, in one line."""

    name = "schedules"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Check the Temporal profile before the process does any work."""
        from schedules import temporal_bridge  # the app registry must be complete first

        try:
            temporal_bridge.read_profile()
        except ValueError as error:
            raise SystemExit(f"Configuration error: {error}") from None


class SchedulerAdminConfig(admin_apps.AdminConfig):
    """Django's admin with our site in place of its own."""

    default = False
    default_site = "schedules.admin_site.SchedulerAdminSite"
