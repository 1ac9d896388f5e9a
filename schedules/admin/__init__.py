"""What administrators see in the browser. Every write goes through a service."""

from __future__ import annotations

from schedules.admin import installs, people, registry, runs, schedules, tenant

__all__ = ["installs", "people", "registry", "runs", "schedules", "tenant"]
