"""Requests that carry an idempotency key: done once, and answered alike ever after."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from django.db import connection, transaction

from schedules.errors import Conflict
from schedules.models import IdempotencyRecord

# For how long an answer is remembered at the least.
MEMORY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Repeatable:
    """What tells a repeat from another request: whose it is, the caller's key, and a digest of what it asks for."""

    tenant_id: UUID
    install_id: UUID
    operation: str
    key: str
    digest: str


def digest_of(content: Any) -> str:
    """A digest of a JSON value's meaning and not of its bytes: the order of members and blanks make no difference."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def once(request: Repeatable, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Do the work and remember its answer, in one transaction; a repeat gets that answer and nothing is done.

    Raises Conflict for the same key with another digest. Where the work raises, nothing is remembered. A repeat that
    comes while the first is under way waits for it.
    """
    with transaction.atomic():
        with connection.cursor() as cursor:
            name = f"idempotency:{request.install_id}:{request.operation}:{request.key}"
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [name])
        known = IdempotencyRecord.objects.filter(
            tenant_id=request.tenant_id, install_id=request.install_id, operation=request.operation, key=request.key
        ).first()
        if known is not None:
            if known.digest != request.digest:
                raise Conflict("This Idempotency-Key was used with another body")
            answer: dict[str, Any] = known.answer
            return answer
        answer = work()
        IdempotencyRecord.objects.create(
            tenant_id=request.tenant_id,
            install_id=request.install_id,
            operation=request.operation,
            key=request.key,
            digest=request.digest,
            answer=answer,
        )
        return answer
