"""API keys: made and shown once, stored as a digest, looked up by tenant and digest.

The key's text carries the tenant's id, so that the lookup begins with the tenant like every other query. The secret
has 256 random bits, which is why a plain SHA-256 is enough: there is nothing to guess that a slow hash would protect.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from schedules import audit, ledger, queries
from schedules.errors import Conflict, InvalidFields, NotFound
from schedules.models import ApiKey, Role, Tenant

_MARK: Final = "esk"
_SHOWN_CHARACTERS: Final = 12
_LAST_USED_PRECISION: Final = timedelta(minutes=1)


def create_key(
    *,
    tenant_id: UUID,
    name: str,
    role: Role,
    actor: audit.Actor,
    expires_at: datetime | None = None,
    key_id: UUID | None = None,
) -> tuple[ApiKey, str]:
    """Create a key; returns its row and its text, which cannot be had again.

    A repeat makes another one, unless the caller names the id. Raises InvalidFields where it would have expired
    already, NotFound for an unknown tenant, Conflict where the id is taken.
    """
    if expires_at is not None and expires_at <= ledger.database_now():
        raise InvalidFields.from_fields({"expires_at": "it must lie in the future"})
    secret = secrets.token_urlsafe(32)
    text = f"{_MARK}_{tenant_id.hex}_{secret}"
    with transaction.atomic():
        if Tenant.objects.select_for_update(no_key=True).filter(id=tenant_id, deleted_at=None).first() is None:
            raise NotFound("Tenant not found")
        if key_id is not None and ApiKey.objects.filter(id=key_id).exists():
            raise Conflict("This key was made already")
        key = ApiKey.objects.create(
            id=key_id or uuid4(),
            tenant_id=tenant_id,
            name=name,
            role=role,
            prefix=secret[:_SHOWN_CHARACTERS],
            digest=_digest(secret),
            expires_at=expires_at,
        )
        audit.record(
            actor,
            "api_key.created",
            key,
            after={"name": name, "role": role, "prefix": key.prefix},
        )
    key.refresh_from_db()
    return key, text


def find_key(text: str) -> ApiKey | None:
    """The valid key with this text, or None. Notes its use, to the minute."""
    mark, _, rest = text.partition("_")
    tenant_hex, _, secret = rest.partition("_")
    tenant_id = queries.parse_uuid(tenant_hex)
    if mark != _MARK or tenant_id is None or not secret:
        return None
    key = (
        ApiKey.objects.filter(tenant_id=tenant_id, digest=_digest(secret), revoked_at__isnull=True)
        .filter(Q(expires_at__isnull=True) | Q(expires_at__gt=Now()))
        .annotate(is_stale=Q(last_used_at__isnull=True) | Q(last_used_at__lt=Now() - _LAST_USED_PRECISION))
        .first()
    )
    if key is not None and key.is_stale:
        ApiKey.objects.filter(tenant_id=tenant_id, id=key.id).update(last_used_at=Now())
    return key


def revoke_key(*, tenant_id: UUID, key_id: UUID, actor: audit.Actor) -> None:
    """End a key at once; a repeat changes nothing. Raises NotFound."""
    with transaction.atomic():
        key = ApiKey.objects.select_for_update().filter(tenant_id=tenant_id, id=key_id).first()
        if key is None:
            raise NotFound("API key not found")
        if key.revoked_at is not None:
            return
        key.revoked_at = Now()
        key.save(update_fields=["revoked_at"])
        audit.record(
            actor,
            "api_key.revoked",
            key,
            before={"name": key.name, "prefix": key.prefix},
        )


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
