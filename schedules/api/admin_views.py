"""The admin API's schedules: what tenant administrators and their tools keep."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import cast

from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response

from schedules import preview, queries, services
from schedules.api import serializers
from schedules.api.authentication import Caller
from schedules.api.base import InstallView, ScheduleCursor, idempotency_key
from schedules.changes import ScheduleChanges
from schedules.models import ExtensionInstall, Schedule


class EndpointsView(InstallView):
    """The endpoints of the installed version."""

    def get(self, request: Request, extension_ref: str) -> Response:
        """List them by path and method."""
        endpoints = queries.endpoints_of(version_id=self.install(request).version_id)
        return Response(
            {
                "results": [
                    serializers.render_endpoint(endpoint)
                    | {"unschedulable_reason": endpoint.unschedulable_reason or None}
                    for endpoint in endpoints
                ],
                "next": None,
                "previous": None,
            }
        )


class SchedulesView(InstallView):
    """The schedules of one install."""

    def get(self, request: Request, extension_ref: str) -> Response:
        """List them, oldest first unless ``order`` says otherwise: by state, endpoint or a part of the name."""
        install = self.install(request)
        wanted = serializers.ScheduleQuery(data=request.query_params.dict())
        wanted.is_valid(raise_exception=True)
        rows = queries.schedules_of(tenant_id=install.tenant_id, install_id=install.id)
        paginator = ScheduleCursor()
        page = paginator.paginate_queryset(queries.filter_schedules(rows, **wanted.validated_data), request, view=self)
        now = datetime.now(UTC)
        return paginator.get_paginated_response(
            [
                serializers.render_schedule(schedule, install_enabled=install.is_enabled, now=now)
                for schedule in page or []
            ]
        )

    def post(self, request: Request, extension_ref: str) -> Response:
        """Create one; the same ``Idempotency-Key`` and body give the same schedule back."""
        install = self.install(request)
        schedule = services.create_schedule(
            tenant_id=install.tenant_id,
            install_id=install.id,
            changes=_read_changes(request),
            actor=Caller(request).actor,
            request=_repeatable(request),
        )
        schedule = self._fresh(schedule)
        return Response(
            serializers.render_schedule(schedule, install_enabled=install.is_enabled, now=datetime.now(UTC)),
            status=status.HTTP_201_CREATED,
        )

    @staticmethod
    def _fresh(schedule: Schedule) -> Schedule:
        """The row as the push after the commit left it, so that the answer can already say "synced"."""
        return queries.find_schedule(
            tenant_id=schedule.tenant_id,
            install_id=schedule.install_id,
            schedule_id=schedule.id,
        )


class DisableAllView(InstallView):
    """Switching all of an install's schedules off."""

    def post(self, request: Request, extension_ref: str) -> Response:
        """Disable every enabled schedule of the install; a repeat finds none."""
        install = self.install(request)
        disabled = services.disable_all(tenant_id=install.tenant_id, install_id=install.id, actor=Caller(request).actor)
        return Response({"disabled": len(disabled), "schedule_ids": [str(schedule.id) for schedule in disabled]})


class PreviewView(InstallView):
    """What a schedule would do."""

    read_methods = InstallView.read_methods | {"POST"}

    def post(self, request: Request, extension_ref: str) -> Response:
        """Tell it, and change nothing."""
        install = self.install(request)
        body = serializers.PreviewRequest(data=request.data)
        body.is_valid(raise_exception=True)
        wanted = body.validated_data
        longest = None
        if schedule_id := wanted.get("schedule_id"):
            schedule = queries.find_schedule(
                tenant_id=install.tenant_id, install_id=install.id, schedule_id=schedule_id
            )
            longest = queries.longest_recent_run_seconds(tenant_id=install.tenant_id, schedule_id=schedule.id)
        shown = preview.preview(
            text=wanted["cron"],
            zone_name=wanted.get("timezone") or install.tenant.timezone or "UTC",
            count=wanted["count"],
            after=wanted.get("after") or datetime.now(UTC),
            longest_run_seconds=longest,
        )
        return Response(serializers.render_preview(shown))


class ScheduleView(InstallView):
    """One schedule."""

    def get(self, request: Request, extension_ref: str, schedule_id: str) -> Response:
        """Show it."""
        install = self.install(request)
        return self._answer(install, self.schedule(install))

    def patch(self, request: Request, extension_ref: str, schedule_id: str) -> Response:
        """Change the given members; ``If-Match`` with the revision guards against a lost update."""
        install = self.install(request)
        services.update_schedule(
            tenant_id=install.tenant_id,
            install_id=install.id,
            schedule_id=self.id_in_address("schedule_id", "Schedule"),
            changes=_read_changes(request),
            actor=Caller(request).actor,
            expected_revision=_expected_revision(request),
        )
        return self._answer(install, self.schedule(install))

    def delete(self, request: Request, extension_ref: str, schedule_id: str) -> Response:
        """Delete it; its runs stay."""
        install = self.install(request)
        services.delete_schedule(
            tenant_id=install.tenant_id,
            install_id=install.id,
            schedule_id=self.id_in_address("schedule_id", "Schedule"),
            actor=Caller(request).actor,
            expected_revision=_expected_revision(request),
        )
        return Response(status=status.HTTP_204_NO_CONTENT)

    @staticmethod
    def _answer(install: ExtensionInstall, schedule: Schedule) -> Response:
        body = serializers.render_schedule(schedule, install_enabled=install.is_enabled, now=datetime.now(UTC))
        return Response(body, headers={"ETag": f'"{schedule.revision}"'})


def _repeatable(request: Request) -> services.RepeatableRequest | None:
    key = idempotency_key(request)
    if key is None:
        return None
    # Of the meaning and not of the bytes: the order of members and blanks make no other request.
    content = json.dumps(request.data, sort_keys=True, separators=(",", ":")).encode()
    return services.RepeatableRequest(key, hashlib.sha256(content).hexdigest())


def _read_changes(request: Request) -> ScheduleChanges:
    body = serializers.ScheduleWrite(data=request.data)
    body.is_valid(raise_exception=True)
    return cast("ScheduleChanges", dict(body.validated_data))


def _expected_revision(request: Request) -> int | None:
    """The revision of an ``If-Match`` header (RFC 9110, section 13.1.1), or None where anything matches."""
    value = request.headers.get("If-Match", "").strip()
    if value in {"", "*"}:
        return None
    text = value.removeprefix("W/").strip('"')
    # Anything else matches no revision there is, which is what a stale one is.
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
