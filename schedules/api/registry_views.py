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
from schedules.api import answers, registry_shapes, requests
from schedules.api.authentication import require_service_token
from schedules.api.schema import REGISTRY, operation
from schedules.errors import InvalidFields
from schedules.installs import InstallState

REGISTRY_HEADER = "x-registry-auth"
ACTOR = audit.Actor(audit.Source.REGISTRY_API, "platform service")
MAX_VERSION_LENGTH = 64
DELETION_BUDGET_SECONDS = 15.0


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

    @operation("put_tenant", tag=REGISTRY, request=requests.TenantPut, answer=registry_shapes.RegisteredTenant)
    def put(self, request: Request, tenant_id: str) -> Response:
        """Create or change a tenant."""
        body = requests.TenantPut(data=request.data)
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

    @operation("delete_tenant", tag=REGISTRY, status=204, refuses=[400])
    def delete(self, request: Request, tenant_id: str) -> Response:
        """Remove everything of a tenant, its mirrors in Temporal included.

        Nothing of it acts any more once this has answered. Where its history is too long to go within the request, the
        rest of it goes by the next call, or by itself within the hour.
        """
        installs.delete_tenant(
            tenant_id=self.id_in_address("tenant_id"), actor=ACTOR, budget_seconds=DELETION_BUDGET_SECONDS
        )
        return Response(status=status.HTTP_204_NO_CONTENT)


class ExtensionView(RegistryView):
    """A registry entry."""

    @operation(
        "put_extension",
        tag=REGISTRY,
        request=requests.ExtensionPut,
        answer=registry_shapes.RegisteredExtension,
        refuses=[409],
    )
    def put(self, request: Request, registry_id: str) -> Response:
        """Create or rename a registry entry."""
        body = requests.ExtensionPut(data=request.data)
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

    @operation(
        "put_version",
        tag=REGISTRY,
        request=requests.VersionPut,
        answer=registry_shapes.PublishedVersion,
        status=(200, 201),
        refuses=[409],
    )
    def put(self, request: Request, registry_id: str, version: str) -> Response:
        """Store a version and materialise its endpoints.

        A version is immutable: other content under the same name is a conflict.
        """
        body = requests.VersionPut(data=request.data)
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
                    answers.render_endpoint(endpoint)
                    for endpoint in queries.endpoints_of(version_id=published.version.id)
                ],
                "skipped": [{"index": item.index, "reason": item.reason} for item in published.skipped],
            },
            status=status.HTTP_201_CREATED if published.created else status.HTTP_200_OK,
        )

    @operation("delete_version", tag=REGISTRY, status=204, refuses=[400, 409])
    def delete(self, request: Request, registry_id: str, version: str) -> Response:
        """Remove a version, unless something refers to it."""
        installs.delete_version(
            registry_id=self.id_in_address("registry_id"),
            version=_version_in_address(version),
            actor=ACTOR,
        )
        return Response(status=status.HTTP_204_NO_CONTENT)


class TenantInstallView(RegistryView):
    """A tenant's install of an extension."""

    @operation(
        "put_install",
        tag=REGISTRY,
        request=requests.InstallPut,
        answer=registry_shapes.RegisteredInstall,
        refuses=[409],
    )
    def put(self, request: Request, tenant_id: str, registry_id: str) -> Response:
        """Install an extension for a tenant, or change the install.

        Another version takes the schedules along, or is refused with what is missing.
        """
        body = requests.InstallPut(data=request.data)
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

    @operation("delete_install", tag=REGISTRY, status=204, refuses=[400])
    def delete(self, request: Request, tenant_id: str, registry_id: str) -> Response:
        """Uninstall an extension: its schedules and their mirrors go, runs and audit stay."""
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
