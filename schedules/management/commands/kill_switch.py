"""``manage.py kill_switch``: stop all runs of something at once, let them go on, or see what is stopped."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from schedules import kill_switches
from schedules.errors import SchedulingError
from schedules.management.operators import operator
from schedules.models import KillScope, KillSwitch
from schedules.payloads import moment_text


class Command(BaseCommand):
    """Changes one row, so it works whether or not Temporal answers."""

    help = (
        "Stop all runs of the whole platform, a tenant, an extension or a version from the next claim on, or let them "
        "go on. Without an action: list what is stopped, by whom and why."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the arguments."""
        parser.add_argument("action", nargs="?", choices=["engage", "release", "list"], default="list")
        parser.add_argument("scope", nargs="?", choices=list(KillScope.values), help="what kind of thing")
        parser.add_argument(
            "target",
            nargs="?",
            default="",
            help="a tenant's id; a registry id or publisher.name; a version's id or publisher.name@version",
        )
        parser.add_argument("--reason", default="", help="why, shown to everybody who wonders; engage needs it")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do what is asked for."""
        if options["action"] == "list":
            self._list()
            return
        if options["scope"] is None:
            raise CommandError(f"Say what: {', '.join(KillScope.values)}")
        actor = operator()
        try:
            target = kill_switches.find_target(scope=options["scope"], name=options["target"])
            if options["action"] == "engage":
                switch = kill_switches.engage(target, reason=options["reason"], actor=actor)
                self.stdout.write(f"Stopped: {_line(switch)}")
                return
            standing = KillSwitch.objects.filter(scope=target.scope, target_id=target.id).first()
            if standing is None:
                raise CommandError("It is not stopped")
            kill_switches.release(switch_id=standing.id, actor=actor)
        except SchedulingError as error:
            raise CommandError(error.message) from error
        self.stdout.write(f"Runs again: {standing}")

    def _list(self) -> None:
        standing = kill_switches.standing()
        for switch in standing:
            self.stdout.write(_line(switch))
        if not standing:
            self.stdout.write("Nothing is stopped")


def _line(switch: KillSwitch) -> str:
    return f"{switch}, since {moment_text(switch.created_at)} by {switch.actor}: {switch.reason}"
