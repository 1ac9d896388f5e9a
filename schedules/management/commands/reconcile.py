"""``manage.py reconcile``: one full convergence pass."""

from __future__ import annotations

import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError

from schedules import comparison, outage, sweep
from schedules.background import PushOutcome
from schedules.comparison import SIGHTING_GAP, Comparison
from schedules.errors import SchedulingError

ROWS = (
    ("mirrors written", PushOutcome.SYNCED),
    ("mirrors removed", PushOutcome.REMOVED),
    ("runs started", PushOutcome.STARTED),
    ("dead runs ended", PushOutcome.CLOSED),
    ("pushed by others", PushOutcome.BUSY),
    ("refused by Temporal", PushOutcome.REFUSED),
    ("failed, see the log", PushOutcome.FAILED),
)


class Command(BaseCommand):
    """Prints what it found and repaired; exit status 1 if anything stays unsynced."""

    help = (
        "Make every mirror in Temporal equal to its row: push what is unsynced, start queued runs, end runs whose "
        "workflow is gone, then compare every row with its mirror and every mirror with the rows."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("--dry-run", action="store_true", help="tell what differs and change nothing")
        parser.add_argument(
            "--force", action="store_true", help="repair a mass of differences, too, which is refused otherwise"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run one pass."""
        try:
            unsynced = sweep.count_unsynced() if options["dry_run"] else self._sweep()
            found = self._compare(force=options["force"], dry_run=options["dry_run"])
        except OperationalError as error:
            raise CommandError(outage.describe(error)) from error
        self._row("still unsynced", unsynced)
        if found is None:
            raise SystemExit(1)
        if found.is_busy:
            self.stderr.write("Somebody else compares right now; nothing was compared here, try again")
        for reason in found.refused:
            self.stderr.write(f"Refused: {reason}")
        left = found.unrepaired + found.waiting_orphans
        if options["dry_run"]:
            left += found.drift.total()
        if unsynced or left or found.refused or found.is_busy:
            raise SystemExit(1)

    def _sweep(self) -> int:
        report = sweep.converge_unsynced(budget_seconds=float("inf"), insistent=True)
        for label, outcome in ROWS:
            self._row(label, report.of(outcome))
        self._row("slots accounted for", report.settled)
        return report.unsynced

    def _compare(self, *, force: bool, dry_run: bool) -> Comparison | None:
        try:
            found = comparison.compare(force=force, dry_run=dry_run)
            if found.waiting_orphans and not found.refused:
                time.sleep(SIGHTING_GAP.total_seconds() + 1)  # an orphan is removed at its second sighting
                again = comparison.compare(force=force)
                found.repaired += again.repaired
                found.waiting_orphans, found.refused = again.waiting_orphans, again.refused
        except SchedulingError as error:
            away = "Temporal does not answer; what is unsynced is pushed once it does"
            self.stderr.write(away if error.retryable else error.message)
            return None
        self._row("rows compared", found.compared)
        for kind in comparison.Drift:
            self._row(f"mirrors {kind}", found.drift[kind])
        self._row("held by operators", found.held)
        self._row("repaired", found.repaired)
        return found

    def _row(self, label: str, number: int) -> None:
        self.stdout.write(f"{label:<20} {number:>6}")
