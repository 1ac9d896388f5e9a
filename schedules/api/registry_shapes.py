"""The shapes of what the registry API answers; see `shapes`."""

from __future__ import annotations

from rest_framework import serializers

from schedules.api import shapes


class RegisteredTenant(shapes.Shape):
    """A tenant as the platform registered it."""

    tenant_id = serializers.UUIDField()
    name = shapes.words()
    timezone = shapes.words()

    example = {"tenant_id": shapes.TENANT, "name": "Acme", "timezone": "Europe/Berlin"}


class RegisteredExtension(shapes.Shape):
    """A registry entry."""

    registry_id = serializers.UUIDField()
    publisher = shapes.words()
    name = shapes.words()

    example = {"registry_id": shapes.ENDPOINT, "publisher": "acme", "name": "reports"}


class SkippedEndpoint(shapes.Shape):
    """A malformed member of a manifest."""

    index = serializers.IntegerField(help_text="Its place in the manifest, from 0.")
    reason = shapes.words()

    example = {"index": 3, "reason": "method is missing"}


class PublishedVersion(shapes.Shape):
    """A version, the endpoints that were read from its manifest, and what was not understood."""

    version_id = serializers.UUIDField()
    version = shapes.words()
    content_hash = shapes.words()
    endpoints = shapes.Endpoint(many=True)
    skipped = SkippedEndpoint(many=True)

    example = {
        "version_id": shapes.RUN,
        "version": "1.4.0",
        "content_hash": shapes.HASH,
        "endpoints": [shapes.Endpoint.example],
        "skipped": [],
    }


class RegisteredInstall(shapes.Shape):
    """An install as the platform registered it."""

    install_id = serializers.UUIDField()
    version = shapes.words()
    is_enabled = serializers.BooleanField()
    granted_caps = serializers.ListField(child=serializers.CharField())

    example = {
        "install_id": shapes.INSTALL,
        "version": "1.4.0",
        "is_enabled": True,
        "granted_caps": ["cap:scheduler.manage"],
    }
