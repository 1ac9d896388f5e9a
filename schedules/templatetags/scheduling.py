"""How templates show moments, states and durations: `schedules.admin.display`, under names that templates can use."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django import template
from django.utils.safestring import SafeString

from schedules.admin import display, run_page, schedule_page
from schedules.admin.base import in_words
from schedules.models import Schedule

register = template.Library()

register.filter("status_badge", display.status_badge)
register.filter("sync_badge", display.sync_badge)
register.filter("cron_words", display.cron_words)
register.filter("milliseconds", display.milliseconds)
register.filter("local_time", display.local_time)
register.filter("state_badge", schedule_page.state_badge)


@register.filter
def moment(value: datetime | None) -> SafeString | str:
    """A time."""
    return display.moment(value)


@register.filter
def moment_and_distance(value: datetime | None) -> SafeString | str:
    """A time, and how far away it is."""
    return display.moment(value, relative=True)


@register.filter
def precise_moment(value: datetime | None) -> SafeString | str:
    """A time to the second."""
    return display.moment(value, precise=True)


@register.filter
def schedule_link(schedule: Schedule) -> SafeString:
    """A schedule's name, as a link to its page."""
    return display.link("schedule_page", schedule.id, schedule)


@register.simple_tag
def address(name: str, *keys: Any) -> str:
    """Where a page is."""
    return display.address(name, *keys)


@register.filter
def readable_json(value: Any) -> str:
    """JSON, one member a line."""
    return run_page.readable(value)


@register.filter
def attempt_badge(outcome: str) -> SafeString:
    """How an attempt ended."""
    return display.badge(outcome.replace("_", " ").capitalize(), "good" if outcome == "succeeded" else "bad")


register.filter("in_words", in_words)
