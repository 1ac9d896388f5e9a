"""``manage.py upgrade_installs``: take every install of an extension to another version."""

from __future__ import annotations

from collections import Counter
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from schedules import queries, remap, upgrades
from schedules.errors import SchedulingError
from schedules.management.operators import operator
from schedules.models import ExtensionInstall, ExtensionVersion


class Command(BaseCommand):
    """Each install goes entirely or not at all, in a transaction of its own; a repeat goes on with those left."""

    help = "Take every install of an extension to another version, or tell what that would do."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the arguments."""
        parser.add_argument("extension", help="the registry id, or publisher.name")
        parser.add_argument("version", help="the version to take, later or earlier")
        parser.add_argument("--from", dest="source", metavar="VERSION", help="only installs that run this version")
        parser.add_argument(
            "--disable-missing",
            action="store_true",
            help="disable schedules that have nowhere to go, and go on",
        )
        parser.add_argument(
            "--remap",
            action="append",
            default=[],
            metavar="'OLD=NEW'",
            help="where schedules go instead, e.g. 'POST /a=POST /b'; may be repeated",
        )
        parser.add_argument("--dry-run", action="store_true", help="tell what would happen and change nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        """Upgrade what there is; exit status 1 if anything was refused."""
        try:
            extension = queries.find_extension(options["extension"])
        except SchedulingError as error:
            raise CommandError(error.message) from error
        named = ExtensionVersion.objects.defer("manifest").filter(extension_id=extension.id)
        target = named.filter(version=options["version"]).first()
        if target is None:
            raise CommandError(f"{extension.slug} has no version {options['version']}")
        wanted = upgrades.Options(
            remap=_read_remap(options["remap"]), ignore_unknown=True, disable_missing=options["disable_missing"]
        )
        counted: Counter[str] = Counter()
        for install_id, outcome in upgrades.upgrade_all(
            extension_id=extension.id,
            target=target,
            source=options["source"],
            options=wanted,
            actor=operator(),
            dry_run=options["dry_run"],
        ):
            if isinstance(outcome, SchedulingError):
                counted["refused"] += 1
                self.stderr.write(f"install {install_id} stays as it is: {outcome.message}")
                continue
            counted += Counter({"installs": 1}) + Counter(remap.count(outcome.steps))
        verb = "would be taken" if options["dry_run"] else "taken"
        self.stdout.write(f"{counted['installs']} install(s) {verb} to {extension.slug} {target.version}")
        for label in ("unchanged", "remapped", "disabled", "enabled"):
            self.stdout.write(f"{label:>10} schedules {counted[label]}")
        left = ExtensionInstall.objects.filter(extension_id=extension.id).exclude(version=target).count()
        self.stdout.write(f"{left} install(s) of other versions left")
        if counted["refused"]:
            raise SystemExit(1)


def _read_remap(pairs: list[str]) -> dict[str, str]:
    read = {}
    for pair in pairs:
        old, separator, new = pair.partition("=")
        if not (separator and old.strip() and new.strip()):
            raise CommandError(f"--remap takes 'OLD=NEW', not {pair!r}")
        read[old.strip()] = new.strip()
    return read
