"""The full comparison: every row with its mirror, and every mirror with our mark with the rows.

The minute's sweep repairs what the rows know of themselves. This finds what happened behind their back: mirrors that
were deleted, edited, unpaused or left over. A great many differences at once are not repaired but reported, because
that is what a wrong or restored database, or a wrong namespace, looks like.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from functools import partial
from itertools import islice
from typing import Final
from uuid import UUID

import structlog
from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.db.models import F
from django.db.models.functions import Now

from schedules import audit, background, convergence, inspection, metrics, temporal
from schedules.background import PushOutcome
from schedules.errors import DeploymentRefused, MirrorRefused
from schedules.inspection import SeenMirror
from schedules.models import ComparisonRecord, MirrorRemoval, OrphanSighting, PassRecord, Schedule
from workflows import names

log = structlog.get_logger(__name__)

# How many mirrors are looked at in a second at the most, so that the comparison is a guest of the server's.
PER_SECOND: Final = 200
BATCH: Final = 50
OWN_NAME: Final = "comparison"
PAGE: Final = 500
# More than this share, and more than this number, missing or orphaned at once are nobody's everyday.
MASS_SHARE: Final = 0.2
MASS_NUMBER: Final = 10
# Between the two sightings that an orphan needs.
SIGHTING_GAP: Final = timedelta(seconds=10)
ACTOR: Final = audit.Actor(audit.Source.SYSTEM, "comparison")


class Drift(StrEnum):
    """How a mirror can differ from its row."""

    MISSING = "missing"
    ORPHANED = "orphaned"
    STALE = "stale"
    EDITED = "edited"
    PAUSED = "paused"
    UNPAUSED = "unpaused"


@dataclass(slots=True)
class Comparison:
    """What a comparison found and did. ``refused`` says why a mass of differences was left alone."""

    compared: int = 0
    held: int = 0
    drift: Counter[Drift] = field(default_factory=Counter)
    repaired: int = 0
    unrepaired: int = 0
    waiting_orphans: int = 0
    refused: list[str] = field(default_factory=list)
    is_busy: bool = False


def compare(*, force: bool = False, dry_run: bool = False) -> Comparison:
    """Compare everything and repair what differs; ``dry_run`` changes nothing at all.

    A mass of missing or orphaned mirrors is refused unless ``force``. Raises DependencyUnavailable where Temporal does
    not answer; what was repaired until then stays. Of two at once, the second does nothing and says so.
    """
    found = Comparison()
    with _alone() as is_ours:
        if not is_ours:
            found.is_busy = True
            return found
        try:
            missing = _compare_rows(found, force=force, dry_run=dry_run)
            _repair_missing(found, missing, force=force, dry_run=dry_run)
            if not found.refused:
                # Where so much is missing, what else is there is no evidence either.
                _compare_mirrors(found, force=force, dry_run=dry_run)
        except (MirrorRefused, DeploymentRefused) as error:
            found.refused.append(error.message)
        finally:
            if not dry_run:
                for kind, number in found.drift.items():
                    metrics.DRIFT.labels(kind=kind).inc(number)
        # One that an outage broke off has come to no end, and has nothing to say about an earlier one's refusal.
        for reason in found.refused:
            log.error("comparison.refused", reason=reason)
        if not dry_run:
            _write_down(found)
    return found


def differences(row: Schedule, seen: SeenMirror | None, *, deployment: UUID) -> set[Drift]:
    """How a mirror differs from its row. The row needs its install. An operator's hold is no difference."""
    if seen is None:
        return {Drift.MISSING}
    found = set()
    if seen.names != _names_of(row):
        found.add(Drift.EDITED)
    if seen.generation != str(row.generation) or seen.deployment != str(deployment):
        found.add(Drift.STALE)
    if seen.digest != row.mirror_digest:
        found.add(Drift.EDITED)
    active = row.enabled and row.install.is_enabled
    if seen.paused and active and seen.note == temporal.OUR_PAUSE_NOTE:
        found.add(Drift.PAUSED)
    if not seen.paused and not active:
        found.add(Drift.UNPAUSED)
    return found


def _names_of(row: Schedule) -> dict[str, str]:
    """What operators find the row's mirror by."""
    attributes = temporal.run_search_attributes(
        tenant_id=row.tenant_id,
        install_id=row.install_id,
        extension_id=row.install.extension_id,
        schedule_id=row.id,
        trigger="schedule",
    )
    return {pair.key.name: str(pair.value) for pair in attributes}


def _compare_rows(found: Comparison, *, force: bool, dry_run: bool) -> list[UUID]:
    """Go through all rows that believe to be in sync; returns the ids of those that have no mirror.

    With ``force`` these are made on the way, as their number decides nothing.
    """
    missing: list[UUID] = []
    deployment = convergence.deployment()
    waiting = _rows_in_sync()
    while rows := list(islice(waiting, BATCH)):
        began = time.monotonic()
        seen = inspection.describe_many([(row.install_id, row.id) for row in rows])
        gone: list[UUID] = []
        for row, mirror in zip(rows, seen, strict=True):
            found.compared += 1
            if isinstance(mirror, Exception):
                log.warning("comparison.not_seen", schedule_id=str(row.id), error=type(mirror).__name__)
                found.unrepaired += 1
            elif _compare_one(found, row, mirror, deployment=deployment, dry_run=dry_run):
                gone.append(row.id)
        if gone and force and not dry_run:
            _make_missing(found, gone)
        else:
            missing += gone
        time.sleep(max(0.0, len(rows) / PER_SECOND - (time.monotonic() - began)))
    return missing


def _compare_one(
    found: Comparison, row: Schedule, mirror: SeenMirror | None, *, deployment: UUID, dry_run: bool
) -> bool:
    """Compare one row with its mirror and repair what differs; returns whether the mirror is missing."""
    held = mirror is not None and mirror.paused and mirror.note != temporal.OUR_PAUSE_NOTE
    found.held += held
    kinds = differences(row, mirror, deployment=deployment)
    if kinds and _has_moved(row):
        return False
    if mirror is not None and not dry_run:
        convergence.note_hold(row, mirror.note if held else None)
    found.drift.update(kinds)
    if kinds and Drift.MISSING not in kinds and not dry_run:
        _count_repairs(found, Counter([_repair(row, kinds)]))
    return Drift.MISSING in kinds


def _rows_in_sync() -> Iterator[Schedule]:
    """All rows whose mirrors show what they want, page by page; the others are the sweep's.

    Those that are to be renewed are among them: until then their mirrors are what they were made to say.
    """
    last = UUID(int=0)
    while True:
        in_sync = Schedule.objects.filter(synced_generation=F("generation"))
        rows = in_sync.filter(id__gt=last).select_related("install")
        page = list(rows.defer("payload", "install__config", "install__secret_envelope").order_by("id")[:PAGE])
        yield from page
        if len(page) < PAGE:
            return
        last = page[-1].id


def _has_moved(row: Schedule) -> bool:
    """Whether the row was changed, pushed or deleted while its mirror was looked at."""
    same = Schedule.objects.filter(id=row.id, generation=row.generation, mirror_digest=row.mirror_digest)
    return not same.filter(synced_generation=row.synced_generation).exists()


def _repair_missing(found: Comparison, missing: list[UUID], *, force: bool, dry_run: bool) -> None:
    if _is_mass(len(missing), of=found.compared) and not force:
        found.refused.append(
            f"{len(missing)} of {found.compared} mirrors are missing: is this the right namespace? If it is, "
            "`manage.py reconcile --force` makes them anew"
        )
        return
    if not dry_run:
        _make_missing(found, missing)


def _make_missing(found: Comparison, ids: list[UUID]) -> None:
    _count_repairs(found, background.in_parallel(_rows(ids), lambda row: _repair(row, {Drift.MISSING})))


def _rows(ids: list[UUID]) -> Iterator[Schedule]:
    """The rows that are still there, a page at a time: there may be as many as there are schedules."""
    for first in range(0, len(ids), PAGE):
        yield from Schedule.objects.filter(id__in=ids[first : first + PAGE]).defer("payload").order_by("id")


def _count_repairs(found: Comparison, outcomes: Counter[PushOutcome]) -> None:
    found.repaired += outcomes[PushOutcome.SYNCED]
    found.unrepaired += outcomes.total() - outcomes[PushOutcome.SYNCED] - outcomes[PushOutcome.NOTHING]


def _repair(row: Schedule, kinds: set[Drift]) -> PushOutcome:
    outcome = background.isolated(partial(_push_again, row, kinds))
    if outcome in {PushOutcome.REFUSED, PushOutcome.FAILED}:
        # Visibly not in sync from now on, and the sweep's.
        Schedule.objects.filter(id=row.id, generation=row.generation).update(synced_generation=0, changed_at=Now())
    return outcome


def _push_again(row: Schedule, kinds: set[Drift]) -> PushOutcome:
    outcome = convergence.push(
        tenant_id=row.tenant_id, schedule_id=row.id, again=True, is_missing=Drift.MISSING in kinds
    )
    if outcome is PushOutcome.SYNCED:
        audit.record(ACTOR, "mirror.repaired", row, before={"drift": sorted(kinds)})
    return outcome


def _compare_mirrors(found: Comparison, *, force: bool, dry_run: bool) -> None:
    """Look for mirrors with our mark that no row stands behind, and delete those that were seen so before."""
    orphans: set[str] = set()
    listed, page = 0, None
    while True:
        ids, page = inspection.list_marked(deployment=convergence.deployment(), page=page)
        listed += len(ids)
        orphans |= _without_row(ids)
        if page is None:
            break
    found.drift[Drift.ORPHANED] += len(orphans)
    if _is_mass(len(orphans), of=listed) and not force:
        found.refused.append(
            f"{len(orphans)} of {listed} mirrors have no row: is this the right database? If it is, "
            "`manage.py reconcile --force` removes them"
        )
        return
    if dry_run:
        return
    OrphanSighting.objects.exclude(mirror_id__in=orphans).delete()
    OrphanSighting.objects.bulk_create([OrphanSighting(mirror_id=one) for one in orphans], ignore_conflicts=True)
    sure = OrphanSighting.objects.filter(mirror_id__in=orphans, first_seen_at__lt=Now() - SIGHTING_GAP)
    removable = list(sure.values_list("mirror_id", flat=True))
    found.waiting_orphans = len(orphans) - len(removable)
    for mirror_id in removable:
        began = time.monotonic()
        if _remove_orphan(mirror_id):
            found.repaired += 1
        time.sleep(max(0.0, 1 / PER_SECOND - (time.monotonic() - began)))


def _remove_orphan(mirror_id: str) -> bool:
    """Delete a mirror after a last look at it and at the rows; lists lag behind writes."""
    seen = inspection.describe_by_id(mirror_id)
    is_ours = seen is not None and seen.deployment == str(convergence.deployment())
    removed = is_ours and bool(_without_row([mirror_id]))
    if removed:
        temporal.remove_by_id(mirror_id)
        log.warning("comparison.orphan_removed", mirror_id=mirror_id)
    OrphanSighting.objects.filter(mirror_id=mirror_id).delete()
    return removed


def _without_row(mirror_ids: list[str]) -> set[str]:
    """Those that stand for no schedule; one whose removal is under way is not orphaned.

    An id that is spelt otherwise than ours is a copy that somebody made.
    """
    ids = {mirror_id: names.parse_mirror_id(mirror_id) for mirror_id in mirror_ids}
    schedule_ids = [parts[1] for parts in ids.values() if parts is not None]
    known = set(Schedule.objects.filter(id__in=schedule_ids).values_list("install_id", "id"))
    known |= set(MirrorRemoval.objects.filter(id__in=schedule_ids).values_list("install_id", "id"))
    return {mirror_id for mirror_id, parts in ids.items() if parts not in known}


def _is_mass(number: int, *, of: int) -> bool:
    return number > MASS_NUMBER and number > MASS_SHARE * of


def _write_down(found: Comparison) -> None:
    with transaction.atomic():
        PassRecord.note(OWN_NAME)
        ComparisonRecord.objects.update_or_create(
            id=1,
            defaults={
                "finished_at": Now(),
                "compared": found.compared,
                "held": found.held,
                "drift": {str(kind): number for kind, number in found.drift.items() if number},
                "refused": "; ".join(found.refused)[:256],
            },
        )


@contextmanager
def _alone() -> Iterator[bool]:
    """Whether nobody else compares; a lock of the session, as no transaction may be open while Temporal is asked.

    On a connection of its own that goes with it: one of the pool could go back there with the lock.
    """
    pooled = connections[DEFAULT_DB_ALIAS]
    settings = {**pooled.settings_dict}
    settings["OPTIONS"] = {name: value for name, value in settings["OPTIONS"].items() if name != "pool"}
    own = type(pooled)(settings, alias="comparison")
    try:
        with own.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_lock(hashtextextended('comparison', 0))")
            (is_ours,) = cursor.fetchone()
        yield bool(is_ours)
    finally:
        own.close()
