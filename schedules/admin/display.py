"""How values look on the pages: moments, durations, states, words. Escaped here; pages take them as they are."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from schedules import cron, preview
from schedules.models import RunStatus, Schedule, SyncState

NOTHING: Final = "\N{EN DASH}"
# State -> the tone that the style sheet colours it by. The word always stands beside the colour.
STATUS_TONES: Final[dict[str, str]] = {
    RunStatus.SUCCEEDED: "good",
    RunStatus.FAILED: "bad",
    RunStatus.TIMED_OUT: "bad",
    RunStatus.MISSED: "warn",
    RunStatus.SKIPPED_OVERLAP: "quiet",
    RunStatus.SKIPPED_DISABLED: "quiet",
    RunStatus.SUPERSEDED: "quiet",
    RunStatus.CANCELLED: "quiet",
    RunStatus.RUNNING: "busy",
    RunStatus.QUEUED: "busy",
}
SYNC_TONES: Final[dict[str, str]] = {SyncState.SYNCED: "good", SyncState.PENDING: "busy", SyncState.FAILED: "bad"}
_UNITS: Final = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def badge(text: str, tone: str, *, title: str = "") -> SafeString:
    """A state in a word, with its tone."""
    return format_html('<span class="badge {}" title="{}">{}</span>', tone, title, text)


def shown_once(about: str, secret: str) -> SafeString:
    """A message with a secret that no page shows again, and a button to copy it."""
    return format_html(
        '{}: <code id="shown-once" class="breaks">{}</code> '
        '<button type="button" class="btn small" data-copy="shown-once">Copy</button>',
        about,
        secret,
    )


def status_badge(status: str) -> SafeString | str:
    """The state of a run."""
    return badge(status_words(status), STATUS_TONES[status]) if status else NOTHING


def status_words(status: str) -> str:
    """The state of a run in words."""
    return status.replace("_", " ").capitalize()


def sync_badge(schedule: Schedule) -> SafeString:
    """Whether Temporal shows what this row says."""
    return badge(schedule.sync_state.label, SYNC_TONES[schedule.sync_state], title=schedule.sync_error)


def moment(
    value: datetime | None, *, relative: bool = False, precise: bool = False, now: datetime | None = None
) -> SafeString | str:
    """A time: in UTC as written here, in the reader's zone once the script has seen it, with UTC in the hint."""
    if value is None:
        return NOTHING
    value = value.astimezone(UTC)
    exact = f"{value:%Y-%m-%d %H:%M:%S} UTC"
    text = exact if precise else f"{value:%Y-%m-%d %H:%M} UTC"
    written = format_html(
        '<time datetime="{}" title="{}" data-moment="{}">{}</time>',
        value.isoformat(),
        exact,
        "precise" if precise else "",
        text,
    )
    if not relative:
        return written
    distance = format_html(
        '<span class="distance" data-distance="{}">{}</span>', value.isoformat(), in_words(value, now=now)
    )
    return format_html("{} {}", written, distance)


def in_words(value: datetime, *, now: datetime | None = None) -> str:
    """How far away a moment is."""
    seconds = round((value - (now or datetime.now(UTC))).total_seconds())
    if abs(seconds) < 1:
        return "now"
    return f"in {duration_words(seconds)}" if seconds > 0 else f"{duration_words(-seconds)} ago"


def duration_words(seconds: float) -> str:
    """A duration by its largest unit or two."""
    left = round(seconds)
    parts: list[str] = []
    for size, unit in _UNITS:
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count} {unit}" if count else "")
        if len(parts) == 2:
            break
    return " ".join(part for part in parts if part) or "0 s"


def milliseconds(value: float | None) -> str:
    """A measured duration."""
    if value is None:
        return NOTHING
    if value < 1000:
        return f"{value:.0f} ms"
    return f"{value / 1000:.1f} s" if value < 60_000 else duration_words(value / 1000)


@lru_cache(maxsize=4096)
def cron_words(text: str) -> str:
    """An expression in plain English; the expression itself where it cannot be read any more."""
    try:
        return preview.describe(cron.parse(text))
    except cron.CronError:
        return text


def local_time(value: datetime, zone_name: str) -> str:
    """A slot on the clock of a schedule's zone."""
    return f"{value.astimezone(ZoneInfo(zone_name)):%a %Y-%m-%d %H:%M %Z}"


def percentage(part: int, whole: int) -> str:
    """A share, or a dash where there is nothing to share."""
    if not whole:
        return NOTHING
    share = 100 * part / whole
    # Rounded down: nobody is told of 100 % with a failure among it.
    return f"{int(share * 10) / 10:g} %"


def link(name: str, key: Any, text: Any) -> SafeString:
    """A link to a page of ours."""
    return format_html('<a href="{}">{}</a>', address(name, key), text)


def address(name: str, *keys: Any) -> str:
    """Where a page of ours is."""
    return reverse(f"admin:schedules_{name}", args=keys)


def short_id(value: UUID) -> str:
    """The first characters of an id, to tell things apart by."""
    return str(value)[:8]
