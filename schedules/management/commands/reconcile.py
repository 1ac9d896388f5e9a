"""``manage.py reconcile``: one full convergence pass."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError

from schedules import sweep
from schedules.convergence import PushOutcome

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

    help = "Make every mirror in Temporal equal to its row, start queued runs, and end runs whose workflow is gone."

    def handle(self, *args: Any, **options: Any) -> None:
        """Run one pass."""
        try:
            report = sweep.converge_unsynced(budget_seconds=float("inf"))
        except OperationalError as error:
            raise CommandError("The database does not answer") from error
        for label, outcome in ROWS:
            self.stdout.write(f"{label:<20} {report.of(outcome):>6}")
        self.stdout.write(f"{'slots accounted for':<20} {report.settled:>6}")
        self.stdout.write(f"{'still unsynced':<20} {report.unsynced:>6}")
        if report.of(PushOutcome.UNAVAILABLE):
            self.stderr.write("Temporal does not answer; what is unsynced is pushed once it does")
        if report.unsynced:
            raise SystemExit(1)
