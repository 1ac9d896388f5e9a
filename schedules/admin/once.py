"""Forms that may be sent twice, by a double click or a reload: each carries a key, and does its work once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

from django.http import HttpRequest

from schedules import idempotency, queries
from schedules.models import IdempotencyRecord

# The hidden member of a form. A page that is asked for anew has another value there.
MEMBER: Final = "request_key"


def id_of(request: HttpRequest) -> UUID | None:
    """The key that the form carries; None without one. What a form makes may have it as its own id."""
    return queries.parse_uuid(request.POST.get(MEMBER, ""))


def key_of(request: HttpRequest) -> str | None:
    """The form's key with a word in front, which keeps it apart from callers' keys; None without one."""
    key = id_of(request)
    return None if key is None else f"admin {key}"


def do_once(
    request: HttpRequest,
    work: Callable[[], dict[str, Any]],
    *,
    tenant_id: UUID,
    install_id: UUID,
    operation: str,
    content: Any,
) -> dict[str, Any]:
    """The work's answer; for the same form sent again with the same content, the answer of the first time."""
    key = key_of(request)
    if key is None:
        return work()
    digest = idempotency.digest_of(content)
    repeatable = idempotency.Repeatable(tenant_id, install_id, operation, _stored_key(key, digest), digest)
    return idempotency.once(repeatable, work)


def was_done(request: HttpRequest, *, tenant_id: UUID, install_id: UUID, operation: str, content: Any) -> bool:
    """Whether the same form has done its work already."""
    key = key_of(request)
    if key is None:
        return False
    stored = _stored_key(key, idempotency.digest_of(content))
    rows = IdempotencyRecord.objects.filter(tenant_id=tenant_id, install_id=install_id, operation=operation)
    return rows.filter(key=stored).exists()


def _stored_key(key: str, digest: str) -> str:
    """With the content in it: who goes back and sends the form with other content asks for something else."""
    return f"{key} {digest}"
