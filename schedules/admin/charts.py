"""Charts as plain numbers: where each bar stands. Templates draw them as SVG, which needs no script and no style."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from schedules.admin import display
from schedules.models import ScheduleRun

HOURS: Final = 24
# From the ground up.
_STACK: Final = ("good", "busy", "quiet", "warn", "bad")
TONE_WORDS: Final = {
    "good": "succeeded",
    "busy": "queued or running",
    "quiet": "skipped, superseded or cancelled",
    "warn": "missed",
    "bad": "failed or timed out",
}


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle with its tone; the origin is the top left corner."""

    x: float
    y: float
    width: float
    height: float
    tone: str
    title: str = ""
    run_id: UUID | None = None
    mark_y: float | None = None


@dataclass(frozen=True, slots=True)
class Label:
    """A word under the axis."""

    x: float
    text: str
    moment: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """What a template draws. ``summary`` says it in words, for those who cannot see it."""

    width: int
    height: int
    bars: Sequence[Bar]
    labels: Sequence[Label]
    summary: str
    top: str = ""
    legend: Sequence[tuple[str, str]] = field(default_factory=tuple)


def hours_chart(counts: Mapping[datetime, Mapping[str, int]], *, end: datetime) -> Chart:
    """The runs of each hour up to the one of ``end``, stacked by what became of them."""
    last = end.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    hours = [last - timedelta(hours=offset) for offset in reversed(range(HOURS))]
    width, height, step = 720, 140, 30
    highest = max((sum(counts.get(hour, {}).values()) for hour in hours), default=0)
    bars: list[Bar] = []
    used: set[str] = set()
    for index, hour in enumerate(hours):
        tones = _by_tone(counts.get(hour, {}))
        y = float(height)
        for tone in _STACK:
            if not tones.get(tone):
                continue
            used.add(tone)
            size = max(2.0, tones[tone] / highest * height)
            y -= size
            title = f"{tones[tone]} {TONE_WORDS[tone]}, {hour:%H:%M} to {hour + timedelta(hours=1):%H:%M} UTC"
            bars.append(Bar(index * step + 3, round(y, 1), step - 6, round(size, 1), tone, title))
    labels = [
        Label(index * step + step / 2, f"{hour:%H:%M}", hour.isoformat())
        for index, hour in enumerate(hours)
        if index % 6 == 0
    ]
    total = sum(sum(tones.values()) for tones in counts.values())
    legend = [(tone, TONE_WORDS[tone]) for tone in _STACK if tone in used]
    return Chart(width, height, bars, labels, f"{total} runs in the last 24 hours", f"{highest} an hour", legend)


def _by_tone(counts: Mapping[str, int]) -> dict[str, int]:
    tones: dict[str, int] = {}
    for status, count in counts.items():
        tone = display.STATUS_TONES[status]
        tones[tone] = tones.get(tone, 0) + count
    return tones


def runs_chart(runs: Sequence[ScheduleRun]) -> Chart:
    """A bar for each run, oldest first: how long it took as the height, how late it began as a mark.

    Heights go by the logarithm, or one slow run would make all others invisible.
    """
    height, step = 110, 12
    width = max(100, len(runs)) * step
    longest = max([*(run.duration_ms or 0 for run in runs), *(run.lateness_ms or 0 for run in runs), 10])
    bars: list[Bar] = []
    for index, run in enumerate(runs):
        took, late = run.duration_ms, run.lateness_ms
        size = 8.0 if took is None else max(8.0, _share(took, longest) * height)
        title = f"{display.status_words(run.status)}, {run.slot:%Y-%m-%d %H:%M:%S} UTC"
        title += "" if took is None else f", took {display.milliseconds(took)}"
        title += "" if late is None else f", late by {display.milliseconds(late)}"
        mark = None if late is None or late < 1 else round(height - _share(late, longest) * height, 1)
        tone = display.STATUS_TONES[run.status]
        bars.append(Bar(index * step + 1, round(height - size, 1), step - 2, round(size, 1), tone, title, run.id, mark))
    tones = [bar.tone for bar in bars]
    legend = [(tone, TONE_WORDS[tone]) for tone in _STACK if tone in tones]
    counted = ", ".join(f"{tones.count(tone)} {words}" for tone, words in legend)
    summary = f"The last {len(runs)} runs: {counted}" if runs else "No runs yet"
    return Chart(width, height, bars, [], summary, display.milliseconds(longest), legend)


def _share(value: float, highest: float) -> float:
    return math.log1p(max(value, 0)) / math.log1p(highest)
