"""What a schedule would do, told before anybody saves it: words, next times, clock changes, warnings.

Computed by the same code that mirrors and claims go by, so what is shown is what happens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from cron_descriptor import Options, get_description

from schedules import calendars, changes, cron
from schedules.errors import InvalidFields

DEFAULT_COUNT: Final = 5
MAX_COUNT: Final = 50
# Time zone rules this far ahead are guesses, and the engine's calendars end.
LAST_MOMENT: Final = datetime(calendars.LAST_YEAR, 1, 1, tzinfo=UTC)
FIRST_MOMENT: Final = datetime(2000, 1, 1, tzinfo=UTC)
_YEAR: Final = timedelta(days=366)


@dataclass(frozen=True, slots=True)
class ClockChangeNote:
    """A clock change that touches the schedule. ``kind`` is ``skipped`` or ``repeated``: what becomes of local time."""

    at: datetime
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class PreviewWarning:
    """Something to think about before saving; ``code`` is for programs."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Preview:
    """What a schedule would do. Slots are UTC instants, ascending."""

    cron: str
    zone: ZoneInfo
    words: str
    follows_elapsed_time: bool
    shortest_gap_seconds: int
    slots: tuple[datetime, ...]
    clock_changes: tuple[ClockChangeNote, ...]
    warnings: tuple[PreviewWarning, ...]


def preview(
    *,
    text: str,
    zone_name: str,
    count: int = DEFAULT_COUNT,
    after: datetime,
    longest_run_seconds: float | None = None,
) -> Preview:
    """Tell what the expression would do in the zone after a moment.

    Raises InvalidFields by the same rules as saving does. ``longest_run_seconds`` is how long the schedule's runs have
    taken lately, where that is known.
    """
    wrong: dict[str, str] = {}
    try:
        expression = cron.parse(changes.check_cron(text))
    except cron.CronError as error:
        wrong["cron"] = str(error)
    try:
        zone = cron.parse_zone(zone_name)
    except cron.CronError as error:
        wrong["timezone"] = str(error)
    if not 1 <= count <= MAX_COUNT:
        wrong["count"] = f"must be between 1 and {MAX_COUNT}"
    if not FIRST_MOMENT <= after < LAST_MOMENT:
        wrong["after"] = f"must be between the years {FIRST_MOMENT.year} and {LAST_MOMENT.year - 1}"
    if wrong:
        raise InvalidFields.from_fields(wrong)
    gap = cron.shortest_gap_seconds(expression)
    return Preview(
        cron=expression.text,
        zone=zone,
        words=describe(expression),
        follows_elapsed_time=expression.follows_elapsed_time,
        shortest_gap_seconds=gap,
        slots=tuple(cron.next_slots(expression, zone, after=after, count=count)),
        clock_changes=tuple(_clock_change_notes(expression, zone, start=after)),
        warnings=tuple(_warnings(expression, gap_seconds=gap, longest_run_seconds=longest_run_seconds)),
    )


def describe(expression: cron.Expression) -> str:
    """The expression in plain English, told from the values that it selects."""
    options = Options()
    options.use_24hour_time_format = True
    options.throw_exception_on_parse_error = True
    fields = (
        _plain_field(expression.minutes, 60, steps=True),
        _plain_field(expression.hours, 24, steps=True),
        _plain_field(expression.days, 31),
        _plain_field(expression.months, 12),
        _plain_field(expression.weekdays, 7),
    )
    return str(get_description(" ".join(fields), options))


def _plain_field(values: tuple[int, ...], size: int, *, steps: bool = False) -> str:
    """Values as the simplest field that means exactly them; a step only where it goes round evenly."""
    if len(values) == size:
        return "*"
    step = values[1] - values[0] if len(values) > 1 else size
    if steps and len(values) > 1 and values == tuple(range(0, size, step)) and size % step == 0:
        return f"*/{step}"
    if len(values) > 2 and values == tuple(range(values[0], values[-1] + 1)):
        return f"{values[0]}-{values[-1]}"
    return ",".join(map(str, values))


def _clock_change_notes(expression: cron.Expression, zone: ZoneInfo, *, start: datetime) -> Iterator[ClockChangeNote]:
    """The clock changes of the coming year at which the schedule does not simply go on by the clock."""
    for change in calendars.clock_changes(zone, start=start, end=start + _YEAR):
        skipped = change.after > change.before
        first, last = sorted((change.at + change.before, change.at + change.after))
        touched = _selected_times(expression, first.replace(tzinfo=None), last.replace(tzinfo=None))
        if not touched:
            continue
        span = f"{first:%H:%M} to {last:%H:%M} on {first:%Y-%m-%d}"
        times = _list(touched)
        if skipped:
            what = (
                f"what would be due then ({times}) does not run, because the schedule follows elapsed time"
                if expression.follows_elapsed_time
                else f"what is due then ({times}) runs once, at {last:%H:%M}{_merged(expression, last)}"
            )
            yield ClockChangeNote(change.at, "skipped", f"The clock in {zone.key} skips {span}: {what}.")
        else:
            what = (
                f"what is due then ({times}) runs in both passes, because the schedule follows elapsed time"
                if expression.follows_elapsed_time
                else f"what is due then ({times}) runs once, in the first pass"
            )
            yield ClockChangeNote(change.at, "repeated", f"The clock in {zone.key} shows {span} twice: {what}.")


def _merged(expression: cron.Expression, moment: datetime) -> str:
    naive = moment.replace(tzinfo=None)
    own = _selected_times(expression, naive, naive + timedelta(minutes=1))
    return ", as one run with what is due at that time anyway" if own else ""


def _selected_times(expression: cron.Expression, first: datetime, last: datetime) -> list[datetime]:
    """The local times that the expression selects, ``first <= time < last``."""
    selected = []
    day = first.replace(hour=0, minute=0, second=0, microsecond=0)
    while day < last:
        if expression.matches_date(day.date()):
            selected += [day + timedelta(minutes=minute) for minute in expression.minutes_of_day]
        day += timedelta(days=1)
    return [time for time in selected if first <= time < last]


def _list(times: list[datetime]) -> str:
    shown = [f"{time:%H:%M}" for time in times[:3]]
    return ", ".join(shown) + (f" and {len(times) - 3} more" if len(times) > 3 else "")


def _warnings(
    expression: cron.Expression, *, gap_seconds: int, longest_run_seconds: float | None
) -> Iterator[PreviewWarning]:
    if 0 in expression.minutes:
        yield PreviewWarning(
            "busy_minute", "It runs at minute 0, when most schedules do; another minute is likely to start sooner."
        )
    minute_field = expression.text.split()[0]
    last_gap = 60 - expression.minutes[-1] + expression.minutes[0]
    every_hour = len(expression.hours) == 24
    if (
        every_hour
        and minute_field.startswith("*/")
        and len(expression.minutes) > 1
        and last_gap != expression.minutes[1]
    ):
        yield PreviewWarning(
            "uneven_minutes",
            f"{minute_field} starts anew each hour: its last gap before the hour is {last_gap} minutes.",
        )
    if longest_run_seconds is not None and longest_run_seconds > gap_seconds:
        yield PreviewWarning(
            "runs_longer_than_gap",
            f"A recent run took {longest_run_seconds:.0f} s, longer than the shortest gap of {gap_seconds} s.",
        )
