"""The registry API: what the platform's own services call. Every call is idempotent."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.conf import settings
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from schedules import audit, installs, queries
from schedules.api import serializers
from schedules.api.authentication import require_service_token
from schedules.errors import InvalidFields
from schedules.installs import InstallState

REGISTRY_HEADER = "x-registry-auth"
ACTOR = audit.Actor(audit.Source.REGISTRY_API, "platform service")
MAX_VERSION_LENGTH = 64


class RegistryView(APIView):
    """Base of the registry's views: one shared secret, no user."""

    authentication_classes = ()
    permission_classes = ()

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Check the token before anything is read."""
        require_service_token(request, header=REGISTRY_HEADER, tokens=settings.REGISTRY_SERVICE_TOKENS)
        super().initial(request, *args, **kwargs)

    def id_in_address(self, name: str) -> UUID:
        """An id of the address, chosen by the caller."""
        found = queries.parse_uuid(self.kwargs[name])
        if found is None:
            raise InvalidFields.from_fields({name: "must be a UUID"})
        return found


class TenantView(RegistryView):
    """A tenant."""

    def put(self, request: Request, tenant_id: str) -> Response:
        """Create or change it."""
        body = serializers.TenantPut(data=request.data)
        body.is_valid(raise_exception=True)
        tenant = installs.put_tenant(
            tenant_id=self.id_in_address("tenant_id"),
            **body.validated_data,
            actor=ACTOR,
        )
        return Response(
            {
                "tenant_id": str(tenant.id),
                "name": tenant.name,
                "timezone": tenant.timezone,
            }
        )

    def delete(self, request: Request, tenant_id: str) -> Response:
        """Remove everything of it."""
        installs.delete_tenant(tenant_id=self.id_in_address("tenant_id"), actor=ACTOR)
        return Response(status=status.HTTP_204_NO_CONTENT)


class ExtensionView(RegistryView):
    """A registry entry."""

    def put(self, request: Request, registry_id: str) -> Response:
        """Create or rename it."""
        body = serializers.ExtensionPut(data=request.data)
        body.is_valid(raise_exception=True)
        extension = installs.put_extension(
            registry_id=self.id_in_address("registry_id"),
            **body.validated_data,
            actor=ACTOR,
        )
        return Response(
            {
                "registry_id": str(extension.id),
                "publisher": extension.publisher,
                "name": extension.name,
            }
        )


class VersionView(RegistryView):
    """A published version."""

    def put(self, request: Request, registry_id: str, version: str) -> Response:
        """Store it and materialise its endpoints."""
        body = serializers.VersionPut(data=request.data)
        body.is_valid(raise_exception=True)
        published = installs.put_version(
            registry_id=self.id_in_address("registry_id"),
            version=_version_in_address(version),
            version_id=body.validated_data.get("version_id"),
            content_hash=body.validated_data["content_hash"],
            manifest=body.validated_data["manifest"],
            actor=ACTOR,
        )
        return Response(
            {
                "version_id": str(published.version.id),
                "version": published.version.version,
                "content_hash": published.version.content_hash,
                "endpoints": [
                    serializers.render_endpoint(endpoint)
                    for endpoint in queries.endpoints_of(version_id=published.version.id)
                ],
                "skipped": [{"index": item.index, "reason": item.reason} for item in published.skipped],
            },
            status=status.HTTP_201_CREATED if published.created else status.HTTP_200_OK,
        )

    def delete(self, request: Request, registry_id: str, version: str) -> Response:
        """Remove it, unless something refers to it."""
        installs.delete_version(
            registry_id=self.id_in_address("registry_id"),
            version=_version_in_address(version),
            actor=ACTOR,
        )
        return Response(status=status.HTTP_204_NO_CONTENT)


class TenantInstallView(RegistryView):
    """A tenant's install of an extension."""

    def put(self, request: Request, tenant_id: str, registry_id: str) -> Response:
        """Install it, or change the install."""
        body = serializers.InstallPut(data=request.data)
        body.is_valid(raise_exception=True)
        install = installs.put_install(
            tenant_id=self.id_in_address("tenant_id"),
            registry_id=self.id_in_address("registry_id"),
            state=InstallState(**body.validated_data),
            actor=ACTOR,
        )
        return Response(
            {
                "install_id": str(install.id),
                "version": install.version.version,
                "is_enabled": install.is_enabled,
                "granted_caps": install.granted_caps,
            }
        )

    def delete(self, request: Request, tenant_id: str, registry_id: str) -> Response:
        """Uninstall it."""
        installs.delete_install(
            tenant_id=self.id_in_address("tenant_id"),
            registry_id=self.id_in_address("registry_id"),
            actor=ACTOR,
        )
        return Response(status=status.HTTP_204_NO_CONTENT)


def _version_in_address(version: str) -> str:
    if len(version) > MAX_VERSION_LENGTH or not version.isprintable():
        raise InvalidFields.from_fields({"version": f"must be printable and at most {MAX_VERSION_LENGTH} characters"})
    return version
