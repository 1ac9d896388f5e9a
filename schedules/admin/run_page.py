"""What a run's page shows beside its row: its attempts in words, and its request as a command."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from django.conf import settings

from schedules import runner
from schedules.models import ExtensionInstall, ScheduleRun

LEFT_OUT: Final = "<left out>"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call to the runner."""

    number: int
    outcome: str
    started_at: datetime | None
    took_ms: float | None
    http_status: int | None
    envelope_status: int | None
    error: str


def read_attempts(run: ScheduleRun) -> list[Attempt]:
    """The attempts that were recorded, oldest first."""
    return [_read_attempt(entry) for entry in run.attempt_log if isinstance(entry, dict)]


def _read_attempt(entry: Mapping[str, Any]) -> Attempt:
    started, finished = _moment(entry.get("started_at")), _moment(entry.get("finished_at"))
    return Attempt(
        number=int(entry.get("attempt") or 0),
        outcome=str(entry.get("outcome") or "unknown"),
        started_at=started,
        took_ms=(finished - started).total_seconds() * 1000 if started and finished else None,
        http_status=entry.get("http_status"),
        envelope_status=entry.get("envelope_status"),
        error=str(entry.get("error") or ""),
    )


def _moment(text: Any) -> datetime | None:
    return datetime.fromisoformat(text) if isinstance(text, str) else None


def readable(payload: Any) -> str:
    """JSON, one member a line; an empty text for none."""
    return "" if payload is None else json.dumps(payload, indent=2, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class LastCall:
    """The last attempt's request: as a curl command, and what the runner recognised it by."""

    command: str
    idempotency_key: str


def last_call(run: ScheduleRun) -> LastCall | None:
    """The request of the last attempt; None where nothing was called.

    Built by the code that calls the runner. The values of the configuration and the secret envelope are left out, and
    so is the runner's address, which is the platform's.
    """
    install = (
        ExtensionInstall.objects.filter(tenant_id=run.tenant_id, id=run.install_id).defer("secret_envelope").first()
    )
    if install is None or run.version_id is None or not run.endpoint_path:
        return None
    invocation = runner.Invocation(
        invocation_id=run.id,
        tenant_id=run.tenant_id,
        registry_id=install.extension_id,
        install_id=run.install_id,
        version_id=run.version_id,
        content_hash=run.content_hash,
        config=dict.fromkeys(sorted(install.config), LEFT_OUT),
        granted_caps=install.granted_caps,
        secret_envelope=None,
        method=run.endpoint_method,
        path=run.endpoint_path,
        payload=run.payload,
        trigger=run.trigger,
        schedule_id=run.schedule_id,
        scheduled_for=run.slot,
        attempt=max(run.attempts, 1),
        # As many as there were before this attempt: a failed answer to it counts for the next one.
        failed_envelopes=sum(_was_refused(attempt) for attempt in read_attempts(run)[: max(run.attempts - 1, 0)]),
        timeout_ms=settings.EXT_GATEWAY_TIMEOUT_MS,
    )
    call = runner.build_call(invocation)
    headers = "".join(f" \\\n  --header {shlex.quote(f'{name}: {value}')}" for name, value in call.headers.items())
    body = shlex.quote(call.body.decode())
    command = f'curl --request POST "$RUNNER_BASE_URL{runner.EXECUTE_PATH}"{headers} \\\n  --data-raw {body}'
    return LastCall(command, invocation.idempotency_key)


def _was_refused(attempt: Attempt) -> bool:
    return attempt.envelope_status is not None and attempt.outcome != runner.AttemptOutcome.SUCCEEDED
