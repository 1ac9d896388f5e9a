"""What a tenant keeps beside its schedules: whom it wants told of what, and the keys of its tools."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response

from schedules import api_keys, installs, kill_switches, notifications, payloads, stats
from schedules.api import answers, requests, shapes, tenant_shapes
from schedules.api.authentication import Caller
from schedules.api.base import TenantView, page_answer
from schedules.api.schema import TENANT, operation, page_of
from schedules.errors import InvalidFields
from schedules.models import ApiKey, AuditEvent, ExtensionInstall, Notification, NotificationChannel, Role


class TenantSettingsView(TenantView):
    """The tenant and the settings that it keeps itself."""

    @operation("get_tenant", tag=TENANT, answer=tenant_shapes.Tenant, parameters=[requests.TenantQuery], refuses=[400])
    def get(self, request: Request) -> Response:
        """Show the tenant and its settings."""
        return Response(answers.render_tenant(self.tenant(request)))

    @operation(
        "update_tenant",
        tag=TENANT,
        request=requests.TenantChange,
        answer=tenant_shapes.Tenant,
        parameters=[requests.TenantQuery],
        refuses=[403],
    )
    def patch(self, request: Request) -> Response:
        """Change for how long the tenant's runs are kept."""
        tenant_id = self.tenant(request).id
        body = requests.TenantChange(data=request.data)
        body.is_valid(raise_exception=True)
        tenant = installs.change_retention(tenant_id=tenant_id, actor=Caller(request).actor, **body.validated_data)
        return Response(answers.render_tenant(tenant))


class TenantStatsView(TenantView):
    """Numbers of all the tenant's runs."""

    parameters = {"GET": requests.TenantStatsQuery}

    @operation(
        "get_tenant_stats", tag=TENANT, answer=shapes.Stats, parameters=[requests.TenantStatsQuery], refuses=[400]
    )
    def get(self, request: Request) -> Response:
        """Count the tenant's runs."""
        tenant_id = self.tenant(request).id
        found = stats.read_stats(tenant_id=tenant_id, days=self.query["days"])
        return Response(answers.render_stats(found))


class ExtensionsView(TenantView):
    """What the tenant has installed."""

    parameters = {"GET": requests.TenantPageQuery}

    @operation(
        "list_extensions",
        tag=TENANT,
        answer=page_of(tenant_shapes.Install),
        parameters=[requests.TenantPageQuery],
    )
    def get(self, request: Request) -> Response:
        """List the installed extensions, the oldest install first."""
        rows = ExtensionInstall.objects.filter(tenant=self.tenant(request)).select_related("extension", "version")
        rows = rows.defer("config", "secret_envelope", "version__manifest")
        switches = kill_switches.standing()

        def render(install: ExtensionInstall) -> dict[str, Any]:
            return answers.render_install(install, stop=kill_switches.find_among(switches, install))

        return page_answer(self, request, rows, orders=requests.INSTALL_ORDERS, render=render)


class AuditEventsView(TenantView):
    """The tenant's audit trail."""

    parameters = {"GET": requests.AuditQuery}

    @operation(
        "list_audit_events",
        tag=TENANT,
        answer=page_of(tenant_shapes.AuditEvent),
        parameters=[requests.AuditQuery],
    )
    def get(self, request: Request) -> Response:
        """List who changed what, the newest first."""
        rows = AuditEvent.objects.filter(tenant_id=self.tenant(request).id)
        if subject_id := self.query.get("subject_id"):
            rows = rows.filter(subject_id=subject_id)
        return page_answer(self, request, rows, orders=requests.AUDIT_ORDERS, render=answers.render_audit_event)


class NotificationsView(TenantView):
    """Messages to the tenant's channels."""

    parameters = {"GET": requests.TenantPageQuery}

    @operation(
        "list_notifications",
        tag=TENANT,
        answer=page_of(tenant_shapes.Notification),
        parameters=[requests.TenantPageQuery],
    )
    def get(self, request: Request) -> Response:
        """List the messages of the last thirty days and whether they arrived, the newest first."""
        rows = Notification.objects.filter(tenant=self.tenant(request)).defer("body")
        return page_answer(self, request, rows, orders=requests.NOTIFICATION_ORDERS, render=answers.render_notification)


class ChannelsView(TenantView):
    """The tenant's notification channels."""

    @operation(
        "list_notification_channels",
        tag=TENANT,
        answer=page_of(tenant_shapes.NotificationChannel),
        parameters=[requests.TenantQuery],
        refuses=[400],
    )
    def get(self, request: Request) -> Response:
        """List the notification channels, oldest first."""
        channels = NotificationChannel.objects.filter(tenant_id=self.tenant(request).id).order_by("created_at", "id")
        return _list([answers.render_channel(channel) for channel in channels])

    @operation(
        "create_notification_channel",
        tag=TENANT,
        request=requests.ChannelCreate,
        answer=tenant_shapes.NewNotificationChannel,
        status=201,
        parameters=[requests.TenantQuery],
        refuses=[403],
    )
    def post(self, request: Request) -> Response:
        """Add a notification channel.

        A webhook's signing secret is in this answer and in no other.
        """
        tenant_id = self.tenant(request).id
        body = requests.ChannelCreate(data=request.data)
        body.is_valid(raise_exception=True)
        channel = notifications.create_channel(tenant_id=tenant_id, actor=Caller(request).actor, **body.validated_data)
        shown = answers.render_channel(channel) | {"secret": channel.secret or None}
        return Response(shown, status=status.HTTP_201_CREATED)


class ChannelView(TenantView):
    """One notification channel."""

    @operation(
        "update_notification_channel",
        tag=TENANT,
        request=requests.ChannelChange,
        answer=tenant_shapes.NotificationChannel,
        parameters=[requests.TenantQuery],
        refuses=[403],
    )
    def patch(self, request: Request, channel_id: str) -> Response:
        """Change the given members of a notification channel."""
        tenant_id = self.tenant(request).id
        body = requests.ChannelChange(data=request.data)
        body.is_valid(raise_exception=True)
        channel = notifications.update_channel(
            tenant_id=tenant_id,
            channel_id=self.id_in_address("channel_id", "Notification channel"),
            actor=Caller(request).actor,
            **body.validated_data,
        )
        return Response(answers.render_channel(channel))

    @operation(
        "delete_notification_channel", tag=TENANT, status=204, parameters=[requests.TenantQuery], refuses=[400, 403]
    )
    def delete(self, request: Request, channel_id: str) -> Response:
        """Remove a notification channel, and what still waits for it."""
        notifications.delete_channel(
            tenant_id=self.tenant(request).id,
            channel_id=self.id_in_address("channel_id", "Notification channel"),
            actor=Caller(request).actor,
        )
        return Response(status=status.HTTP_204_NO_CONTENT)


class ApiKeysView(TenantView):
    """The tenant's API keys. Who may not write may not see them either."""

    read_methods = frozenset()

    @operation(
        "list_api_keys",
        tag=TENANT,
        answer=page_of(tenant_shapes.ApiKey),
        parameters=[requests.TenantQuery],
        refuses=[400, 403],
    )
    def get(self, request: Request) -> Response:
        """List the API keys, newest first."""
        keys = ApiKey.objects.filter(tenant_id=self.tenant(request).id).order_by("-created_at", "id")
        return _list([answers.render_api_key(key) for key in keys])

    @operation(
        "create_api_key",
        tag=TENANT,
        request=requests.ApiKeyCreate,
        answer=tenant_shapes.NewApiKey,
        status=201,
        parameters=[requests.TenantQuery],
        refuses=[403],
    )
    def post(self, request: Request) -> Response:
        """Make an API key.

        Its text is in this answer and in no other.
        """
        tenant_id = self.tenant(request).id
        body = requests.ApiKeyCreate(data=request.data)
        body.is_valid(raise_exception=True)
        wanted = body.validated_data
        _refuse_outliving(Caller(request).key, wanted.get("expires_at"))
        key, text = api_keys.create_key(
            tenant_id=tenant_id,
            name=wanted["name"],
            role=Role(wanted["role"]),
            expires_at=wanted.get("expires_at"),
            actor=Caller(request).actor,
        )
        return Response(answers.render_api_key(key) | {"key": text}, status=status.HTTP_201_CREATED)


class ApiKeyView(TenantView):
    """One API key."""

    @operation("revoke_api_key", tag=TENANT, status=204, parameters=[requests.TenantQuery], refuses=[400, 403])
    def delete(self, request: Request, key_id: str) -> Response:
        """Revoke an API key: from the next request on it opens nothing."""
        api_keys.revoke_key(
            tenant_id=self.tenant(request).id,
            key_id=self.id_in_address("key_id", "API key"),
            actor=Caller(request).actor,
        )
        return Response(status=status.HTTP_204_NO_CONTENT)


def _refuse_outliving(maker: ApiKey | None, expires_at: datetime | None) -> None:
    """A key that ends some day makes none that goes on after it: whoever found it would keep the door open."""
    if maker is None or maker.expires_at is None:
        return
    if expires_at is None or expires_at > maker.expires_at:
        until = payloads.moment_text(maker.expires_at)
        raise InvalidFields.from_fields(
            {"expires_at": f"a key made by this one cannot outlive it: {until} at the latest"}
        )


def _list(results: list[dict[str, Any]]) -> Response:
    return Response({"results": results, "next": None, "previous": None})
