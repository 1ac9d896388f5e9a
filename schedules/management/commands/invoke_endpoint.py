"""``manage.py invoke_endpoint INSTALL "POST /api/setup"``: call a manifest endpoint once, through the runner."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from schedules import audit, payloads, queries, runner
from schedules.errors import SchedulingError
from schedules.models import ExtensionInstall
from schedules.runner import Answer, AttemptOutcome, Invocation


class Command(BaseCommand):
    """Prints the status and body of the answer; exit status 1 unless the call succeeded."""

    help = "Call any endpoint of an install's version once through the runner, scheduled or not."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the arguments."""
        parser.add_argument("install", help="the install id")
        parser.add_argument("endpoint", help='"METHOD /path" with its parameters filled in, or a path')
        parser.add_argument("--payload", help="a JSON object or array to send")

    def handle(self, *args: Any, **options: Any) -> None:
        """Resolve, call, print."""
        install = self._find_install(options["install"])
        payload = self._read_payload(options["payload"])
        try:
            endpoint, path = queries.match_endpoint(version_id=install.version_id, selector=options["endpoint"])
        except SchedulingError as error:
            raise CommandError(error.message) from error
        invocation = Invocation(
            invocation_id=uuid4(),
            tenant_id=install.tenant_id,
            registry_id=install.extension_id,
            install_id=install.id,
            version_id=install.version_id,
            content_hash=install.version.content_hash,
            config=install.config,
            granted_caps=install.granted_caps,
            secret_envelope=install.secret_envelope,
            method=endpoint.method,
            path=path,
            payload=payload,
            trigger="run_now",
            schedule_id=None,
            scheduled_for=datetime.now(UTC),
            attempt=1,
            failed_envelopes=0,
            timeout_ms=settings.EXT_GATEWAY_TIMEOUT_MS,
        )
        audit.record(
            audit.Actor(audit.Source.COMMAND, "invoke_endpoint"),
            "endpoint.invoked",
            install,
            after={"endpoint": f"{endpoint.method} {path}"},
        )
        self._print(asyncio.run(_call(invocation)))

    @staticmethod
    def _find_install(text: str) -> ExtensionInstall:
        install_id = queries.parse_uuid(text)
        install = (
            ExtensionInstall.objects.select_related("version").filter(id=install_id).first() if install_id else None
        )
        if install is None:
            raise CommandError(f"There is no install {text}")
        return install

    @staticmethod
    def _read_payload(text: str | None) -> Any:
        if text is None:
            return None
        try:
            payload = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CommandError(f"--payload is not JSON that can be read: {type(error).__name__}") from error
        if problem := payloads.problem_with_payload(payload):
            raise CommandError(problem)
        return payload

    def _print(self, answer: Answer) -> None:
        status = answer.envelope_status or answer.http_status
        if status is not None:
            self.stdout.write(f"status {status}")
        if answer.body:
            self.stdout.write(answer.body.decode(errors="replace"))
        if answer.outcome is not AttemptOutcome.SUCCEEDED:
            raise CommandError(answer.error)


async def _call(invocation: Invocation) -> Answer:
    async with runner.make_client(max_connections=1) as client:
        return await runner.execute(client, runner.build_call(invocation))
