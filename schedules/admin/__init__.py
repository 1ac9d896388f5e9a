"""What administrators see in the browser. Every write goes through a service."""

from __future__ import annotations

from schedules.admin import registry, runs, schedules, tenant

__all__ = ["registry", "runs", "schedules", "tenant"]
