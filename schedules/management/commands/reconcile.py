"""``manage.py reconcile``: one full convergence pass."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from schedules import convergence
from schedules.convergence import PushOutcome


class Command(BaseCommand):
    """Prints what it found and repaired; exit status 1 if anything stays unsynced."""

    help = "Make every mirror in Temporal equal to its row, and start queued runs that have no workflow."

    def handle(self, *args: Any, **options: Any) -> None:
        """Run one pass."""
        report = convergence.converge_unsynced()
        rows = (
            ("mirrors written", report.of(PushOutcome.SYNCED)),
            ("mirrors removed", report.of(PushOutcome.REMOVED)),
            ("runs started", report.started),
            ("refused by Temporal", report.of(PushOutcome.REFUSED)),
            ("still unsynced", report.unsynced),
        )
        for label, number in rows:
            self.stdout.write(f"{label:<20} {number:>6}")
        if report.of(PushOutcome.UNAVAILABLE):
            self.stderr.write("Temporal does not answer; what is unsynced is pushed once it does")
        if report.unsynced:
            raise SystemExit(1)
