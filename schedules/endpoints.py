"""Makes rows of the endpoints that a version's manifest declares.

A version usually gets them when it is published. One that came without, e.g. by an import, gets them by
``manage.py materialize_endpoints`` or when somebody first asks for them.
"""

from __future__ import annotations

from uuid import UUID

import structlog
from django.db.models.functions import Now

from schedules import manifests
from schedules.models import ApiEndpoint, ExtensionVersion

log = structlog.get_logger(__name__)


def materialise(version: ExtensionVersion) -> manifests.ReadManifest:
    """Store the endpoints that the manifest declares; returns what was read and what was left out.

    Rows that are there stay as they are, so a repeat changes nothing, and two at once do no harm.
    """
    read = manifests.read_manifest(version.manifest if isinstance(version.manifest, dict) else {})
    ApiEndpoint.objects.bulk_create(
        (
            ApiEndpoint(
                version=version,
                method=endpoint.method,
                path=endpoint.path,
                handler=endpoint.handler,
                schedulable=endpoint.schedulable,
                unschedulable_reason=endpoint.unschedulable_reason,
            )
            for endpoint in read.endpoints
        ),
        ignore_conflicts=True,
    )
    ExtensionVersion.objects.filter(id=version.id).update(endpoints_read_at=Now(), capabilities=list(read.capabilities))
    return read


def materialise_if_unread(version_id: UUID) -> bool:
    """Do so for a version whose manifest has never been read; returns whether that was so."""
    version = ExtensionVersion.objects.filter(id=version_id, endpoints_read_at=None).first()
    if version is None:
        return False
    read = materialise(version)
    log.info(
        "version.materialised", version_id=str(version_id), endpoints=len(read.endpoints), skipped=len(read.skipped)
    )
    return True
