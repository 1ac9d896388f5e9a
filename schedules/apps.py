"""The Django application of schedules."""

from __future__ import annotations

from django.apps import AppConfig


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
