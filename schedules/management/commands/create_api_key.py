"""``manage.py create_api_key TENANT NAME``: make an API key and show it once."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from schedules import api_keys, audit, payloads, queries
from schedules.errors import InvalidFields
from schedules.models import MAX_NAME_LENGTH, Role, Tenant


class Command(BaseCommand):
    """Prints the key alone, so that a script can take it. It cannot be shown again."""

    help = "Create an API key of a tenant and print it once."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the arguments."""
        parser.add_argument("tenant", help="the tenant id")
        parser.add_argument("name", help="what the key is for")
        parser.add_argument("--role", choices=Role.values, default=Role.VIEWER)
        parser.add_argument("--expires", help="when it ends, e.g. 2030-01-01T00:00:00Z; never where it is left out")

    def handle(self, *args: Any, **options: Any) -> None:
        """Create and print."""
        tenant_id = queries.parse_uuid(options["tenant"])
        if tenant_id is None or not Tenant.objects.filter(id=tenant_id).exists():
            raise CommandError(f"There is no tenant {options['tenant']}")
        if not 1 <= len(options["name"]) <= MAX_NAME_LENGTH:
            raise CommandError(f"The name needs 1 to {MAX_NAME_LENGTH} characters")
        actor = audit.Actor(audit.Source.COMMAND, "create_api_key")
        role = Role(options["role"])
        try:
            _, text = api_keys.create_key(
                tenant_id=tenant_id,
                name=options["name"],
                role=role,
                expires_at=_moment(options["expires"]),
                actor=actor,
            )
        except InvalidFields as error:
            raise CommandError(error.message) from error
        self.stdout.write(text)


def _moment(text: str | None) -> datetime | None:
    moment = payloads.parse_moment(text) if text is not None else None
    if text is not None and moment is None:
        raise CommandError(f"--expires: {text!r} is no time such as 2030-01-01T00:00:00Z")
    return moment
