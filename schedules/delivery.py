"""Delivers the messages of `schedules.notifications`: by e-mail, and by webhooks signed as Standard Webhooks say.

At least once: a message is taken for a while, sent, and then marked; who dies in between leaves it to the next one.
The receiver tells repeats by the message's id (https://github.com/standard-webhooks/standard-webhooks).
"""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast
from uuid import UUID

import httpx
import structlog
from django.conf import settings
from django.core.mail import EmailMessage
from django.db import connection
from django.db.models.functions import Now
from standardwebhooks import Webhook

from schedules import egress, metrics
from schedules.models import Notification, NotificationEvent, NotificationKind
from schedules.payloads import moment_text

log = structlog.get_logger(__name__)

BATCH: Final = 20
THREADS: Final = 4
TIMEOUT_SECONDS: Final = 10.0
# Longer than a batch can take, after which somebody else tries.
LEASE: Final = timedelta(minutes=5)
# The pauses after failed attempts; two days of trouble at the receiver lose nothing.
PAUSES: Final = tuple(
    timedelta(seconds=seconds) for seconds in (5, 60, 300, 1800, 7200, 5 * 3600, 10 * 3600, 14 * 3600, 20 * 3600)
)
MAX_ERROR_LENGTH: Final = 256
_SUBJECTS: Final[dict[str, str]] = {
    NotificationEvent.FAILURE: "failed",
    NotificationEvent.RECOVERY: "works again",
    NotificationEvent.AUTO_PAUSE: "was disabled",
    NotificationEvent.MISSED: "missed what was due",
}


def deliver_due(*, max_batches: int = 50) -> int:
    """Try every message that is due; returns how many were delivered. Safe to run in several processes at once."""
    delivered = 0
    with ThreadPoolExecutor(THREADS, thread_name_prefix="delivery") as threads:
        for _ in range(max_batches):
            taken = _take()
            if not taken:
                break
            delivered += sum(threads.map(_deliver, taken))
    return delivered


def _take() -> list[Notification]:
    """Take some due messages, the least tried first: those of a dead receiver do not keep the others waiting."""
    with connection.cursor() as cursor:
        cursor.execute(_TAKE, {"lease": cast("Any", LEASE), "batch": BATCH})
        ids: list[UUID] = [row[0] for row in cursor.fetchall()]
    return list(Notification.objects.select_related("channel").filter(id__in=ids)) if ids else []


def _deliver(message: Notification) -> bool:
    """Send one message and mark what came of it. Its own thread, so its own connection, given back at the end."""
    try:
        error = _send(message)
        _mark(message, error)
    except Exception:
        log.exception("notification.bug", notification_id=str(message.id))
        _mark(message, "An error of ours, see the log")
        return False
    finally:
        connection.close()
    return not error


def _send(message: Notification) -> str:
    """Returns what went wrong, or an empty text. Never raises for what the receiver does."""
    if message.channel.kind == NotificationKind.WEBHOOK:
        return _send_webhook(message)
    try:
        _email(message).send()
    except (OSError, ValueError) as error:  # smtplib's errors are OSErrors
        return f"The mail server did not take it ({type(error).__name__})"
    return ""


def _send_webhook(message: Notification) -> str:
    now = datetime.now(UTC)
    content = json.dumps(webhook_body(message), ensure_ascii=False, separators=(",", ":"))
    headers = {
        "content-type": "application/json",
        "user-agent": "extension-scheduler",
        "webhook-id": str(message.id),
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(message.channel.secret).sign(str(message.id), now, content),
    }
    try:
        target = egress.check(message.channel.target)
        status = asyncio.run(_post(target, content.encode(), headers))
    except egress.AddressRefused as error:
        return f"The address is refused: {error}"
    except TimeoutError:
        return f"The receiver did not answer within {TIMEOUT_SECONDS:g} s"
    except (OSError, httpx.HTTPError) as error:
        return f"The receiver was not reached ({type(error).__name__})"
    return "" if 200 <= status < 300 else f"The receiver answered HTTP {status}"


async def _post(target: egress.Target, content: bytes, headers: dict[str, str]) -> int:
    """The HTTP status of one exchange, which as a whole ends in time, however slowly the other side speaks."""
    async with (
        asyncio.timeout(TIMEOUT_SECONDS),
        httpx.AsyncClient(timeout=None, follow_redirects=False, trust_env=False) as client,  # noqa: S113 - bounded above
    ):
        response = await client.send(target.request(client, content=content, headers=headers), stream=True)
        await response.aclose()  # its body is of no interest
        return response.status_code


def webhook_body(message: Notification) -> dict[str, object]:
    """What a webhook says: ``{type, timestamp, data}``, the form that Standard Webhooks recommend."""
    return {
        "type": f"schedule.{message.event}",
        "timestamp": moment_text(message.created_at),
        "data": message.body,
    }


def _email(message: Notification) -> EmailMessage:
    # A name may hold anything but a line break, which the schedule's own rules refuse.
    subject = f"Schedule {message.body.get('schedule', '')} {_SUBJECTS[message.event]}"[:200]
    lines = [f"{name.replace('_', ' ')}: {value}" for name, value in message.body.items() if value not in ("", None)]
    return EmailMessage(
        subject=" ".join(subject.split()),
        body="\n".join(lines),
        from_email=settings.DEFAULT_FROM_EMAIL,
        to=[message.channel.target],
        headers={"Message-ID": f"<{message.id}@extension-scheduler>"},
    )


def _mark(message: Notification, error: str) -> None:
    row = Notification.objects.filter(id=message.id)
    if not error:
        row.update(delivered_at=Now(), next_attempt_at=None, last_error="")
        metrics.NOTIFICATIONS.labels(kind=message.channel.kind, outcome="delivered").inc()
        return
    gave_up = message.attempts > len(PAUSES)
    row.update(
        next_attempt_at=None if gave_up else Now() + PAUSES[message.attempts - 1],
        last_error=error[:MAX_ERROR_LENGTH],
    )
    metrics.NOTIFICATIONS.labels(kind=message.channel.kind, outcome="given_up" if gave_up else "failed").inc()
    log.warning("notification.not_delivered", notification_id=str(message.id), reason=error, gave_up=gave_up)


_TAKE: Final = """
UPDATE schedules_notification
SET attempts = attempts + 1, next_attempt_at = statement_timestamp() + %(lease)s
WHERE id IN (
    SELECT id FROM schedules_notification
    WHERE next_attempt_at <= statement_timestamp()
    ORDER BY attempts, next_attempt_at
    LIMIT %(batch)s
    FOR UPDATE SKIP LOCKED
)
RETURNING id
"""
