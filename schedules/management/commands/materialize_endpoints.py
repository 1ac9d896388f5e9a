"""``manage.py materialize_endpoints``: read the manifests of versions that came without endpoint rows."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from schedules import endpoints
from schedules.models import ExtensionVersion


class Command(BaseCommand):
    """Adds what is missing and changes nothing that is there, so it can be run at any time, and again."""

    help = "Store the endpoints that versions' manifests declare, for versions that came without them."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("--all", action="store_true", help="read every manifest anew, and not only unread ones")

    def handle(self, *args: Any, **options: Any) -> None:
        """Read them, and report what was left out of each."""
        waiting = ExtensionVersion.objects.order_by("id")
        if not options["all"]:
            waiting = waiting.filter(endpoints_read_at=None)
        done = 0
        for version_id in list(waiting.values_list("id", flat=True)):
            version = ExtensionVersion.objects.select_related("extension").filter(id=version_id).first()
            if version is None:
                continue  # deleted meanwhile
            read = endpoints.materialise(version)
            done += 1
            self.stdout.write(f"{version}: {len(read.endpoints)} endpoint(s), {len(read.skipped)} left out")
            for member in read.skipped:
                self.stderr.write(f"{version}: api.endpoints[{member.index}] was left out: {member.reason}")
        self.stdout.write(f"{done} version(s) read")
