"""Operators' holds: a mirror that somebody paused in Temporal, which stays paused until somebody lifts it.

Temporal has the last word on whether a mirror is held; the row remembers what was seen, for whoever looks at it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from typing import Final
from uuid import UUID

import structlog
from django.db.models import F

from schedules import convergence, inspection, temporal
from schedules.errors import SchedulingError
from schedules.models import Schedule
from workflows import names

log = structlog.get_logger(__name__)

HELD_REASON: Final = "an operator held the schedule in Temporal"
# Disabled schedules are paused mirrors, too; beyond so many pages of them only the full comparison looks for holds.
MAX_PAGES: Final = 50
# After so many questions without an answer there is none to be had.
MAX_UNANSWERED: Final = 2
BATCH: Final = 50
PAGE: Final = 500
# Mirrors are looked at no faster than a comparison does.
PER_SECOND: Final = 200


class Inquiry:
    """Asks Temporal which schedules an operator holds, and stops asking when it does not answer."""

    def __init__(self) -> None:
        self._unanswered = 0

    def reason(self, schedule: Schedule) -> str | None:
        """Why its slots are not to be run, an empty text where nothing speaks against it, None where nobody knows."""
        if self._unanswered >= MAX_UNANSWERED:
            return None
        try:
            note = temporal.hold_note(install_id=schedule.install_id, schedule_id=schedule.id)
        except SchedulingError:
            # Whoever cannot be asked may be holding it; the next pass asks again.
            self._unanswered += 1
            return None
        self._unanswered = 0
        if note is None:
            return ""
        return f"{HELD_REASON}: {note}" if note else HELD_REASON


def notice(*, deadline: float = float("inf")) -> int:
    """Write down on the rows which mirrors are held now and which no longer are; returns how many had changed.

    Stops after ``deadline`` (of `time.monotonic`). A repeat finds nothing. Raises DependencyUnavailable, MirrorRefused.
    """
    paused = _paused_by_others()
    if paused is None:
        return 0
    waiting = _doubtful(paused)
    changed = 0
    while time.monotonic() < deadline and (rows := list(islice(waiting, BATCH))):
        began = time.monotonic()
        # Lists lag behind writes, so that what is written down is what the mirror itself says.
        seen = inspection.describe_many([(row.install_id, row.id) for row in rows])
        for row, mirror in zip(rows, seen, strict=True):
            if mirror is None or isinstance(mirror, Exception):
                continue
            held = mirror.paused and mirror.note != temporal.OUR_PAUSE_NOTE
            convergence.note_hold(row, mirror.note if held else None)
            changed += held is not (row.held_since is not None)
        time.sleep(max(0.0, len(rows) / PER_SECOND - (time.monotonic() - began)))
    if changed:
        log.info("holds.noticed", changed=changed)
    return changed


def _doubtful(paused: dict[UUID, str]) -> Iterator[Schedule]:
    """The rows that say otherwise than the list does."""
    rows = Schedule.objects.defer("payload")
    ids = list(paused)
    for first in range(0, len(ids), PAGE):
        page = rows.filter(id__in=ids[first : first + PAGE], held_since=None, synced_generation=F("generation"))
        yield from list(page)
    yield from [row for row in rows.exclude(held_since=None) if paused.get(row.id) != row.held_note]


def _paused_by_others() -> dict[UUID, str] | None:
    """The notes of the mirrors that are paused and not by us, by schedule; None where that is too much to read."""
    found: dict[UUID, str] = {}
    page: bytes | None = None
    for _ in range(MAX_PAGES):
        notes, page = inspection.list_paused(deployment=convergence.deployment(), page=page)
        for mirror_id, note in notes.items():
            ids = names.parse_mirror_id(mirror_id)
            if ids is not None and note != temporal.OUR_PAUSE_NOTE:
                found[ids[1]] = note[: temporal.MAX_NOTE_LENGTH]
        if page is None:
            return found
    log.warning("holds.too_many_paused", read=MAX_PAGES * inspection.PAGE_SIZE)
    return None
