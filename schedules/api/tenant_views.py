"""What a tenant keeps beside its schedules: whom it wants told of what, and the keys of its tools."""

from __future__ import annotations

from typing import Any

from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response

from schedules import api_keys, installs, notifications, stats
from schedules.api import serializers
from schedules.api.authentication import Caller
from schedules.api.base import TenantCallerView
from schedules.models import ApiKey, NotificationChannel, Role, Tenant


class TenantSettingsView(TenantCallerView):
    """The tenant and the settings that it keeps itself."""

    def get(self, request: Request) -> Response:
        """Show them."""
        return Response(serializers.render_tenant(Tenant.objects.get(id=self.tenant(request))))

    def patch(self, request: Request) -> Response:
        """Change for how long runs are kept."""
        tenant_id = self.tenant(request)
        body = serializers.TenantChange(data=request.data)
        body.is_valid(raise_exception=True)
        tenant = installs.change_retention(tenant_id=tenant_id, actor=Caller(request).actor, **body.validated_data)
        return Response(serializers.render_tenant(tenant))


class TenantStatsView(TenantCallerView):
    """Numbers of all the tenant's runs."""

    def get(self, request: Request) -> Response:
        """Show them."""
        tenant_id = self.tenant(request)
        wanted = serializers.StatsQuery(data=request.query_params)
        wanted.is_valid(raise_exception=True)
        found = stats.read_stats(tenant_id=tenant_id, days=wanted.validated_data["days"])
        return Response(serializers.render_stats(found))


class ChannelsView(TenantCallerView):
    """The tenant's notification channels."""

    def get(self, request: Request) -> Response:
        """List them, oldest first."""
        channels = NotificationChannel.objects.filter(tenant_id=self.tenant(request)).order_by("created_at", "id")
        return _list([serializers.render_channel(channel) for channel in channels])

    def post(self, request: Request) -> Response:
        """Add one. A webhook's signing secret is in this answer and in no other."""
        tenant_id = self.tenant(request)
        body = serializers.ChannelCreate(data=request.data)
        body.is_valid(raise_exception=True)
        channel = notifications.create_channel(tenant_id=tenant_id, actor=Caller(request).actor, **body.validated_data)
        shown = serializers.render_channel(channel) | {"secret": channel.secret or None}
        return Response(shown, status=status.HTTP_201_CREATED)


class ChannelView(TenantCallerView):
    """One notification channel."""

    def patch(self, request: Request, channel_id: str) -> Response:
        """Change the given members."""
        tenant_id = self.tenant(request)
        body = serializers.ChannelChange(data=request.data)
        body.is_valid(raise_exception=True)
        channel = notifications.update_channel(
            tenant_id=tenant_id,
            channel_id=self.id_in_address("channel_id", "Notification channel"),
            actor=Caller(request).actor,
            **body.validated_data,
        )
        return Response(serializers.render_channel(channel))

    def delete(self, request: Request, channel_id: str) -> Response:
        """Remove it, and what still waits for it."""
        notifications.delete_channel(
            tenant_id=self.tenant(request),
            channel_id=self.id_in_address("channel_id", "Notification channel"),
            actor=Caller(request).actor,
        )
        return Response(status=status.HTTP_204_NO_CONTENT)


class ApiKeysView(TenantCallerView):
    """The tenant's API keys. Who may not write may not see them either."""

    read_methods = frozenset()

    def get(self, request: Request) -> Response:
        """List them, newest first."""
        keys = ApiKey.objects.filter(tenant_id=self.tenant(request)).order_by("-created_at", "id")
        return _list([serializers.render_api_key(key) for key in keys])

    def post(self, request: Request) -> Response:
        """Make one. Its text is in this answer and in no other."""
        tenant_id = self.tenant(request)
        body = serializers.ApiKeyCreate(data=request.data)
        body.is_valid(raise_exception=True)
        wanted = body.validated_data
        key, text = api_keys.create_key(
            tenant_id=tenant_id,
            name=wanted["name"],
            role=Role(wanted["role"]),
            expires_at=wanted.get("expires_at"),
            actor=Caller(request).actor,
        )
        return Response(serializers.render_api_key(key) | {"key": text}, status=status.HTTP_201_CREATED)


class ApiKeyView(TenantCallerView):
    """One API key."""

    def delete(self, request: Request, key_id: str) -> Response:
        """Revoke it: from the next request on it opens nothing."""
        api_keys.revoke_key(
            tenant_id=self.tenant(request),
            key_id=self.id_in_address("key_id", "API key"),
            actor=Caller(request).actor,
        )
        return Response(status=status.HTTP_204_NO_CONTENT)


def _list(results: list[dict[str, Any]]) -> Response:
    return Response({"results": results, "next": None, "previous": None})
