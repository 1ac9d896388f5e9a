"""The admin API: what tenant administrators and their tools call."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import ClassVar, cast
from uuid import UUID

from rest_framework import status
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from schedules import preview, queries, runs, services
from schedules.api import serializers
from schedules.api.authentication import Caller
from schedules.api.permissions import IsTenantCaller
from schedules.errors import InvalidFields, NotFound, PermissionDenied
from schedules.models import ExtensionInstall, Schedule
from schedules.services import ScheduleChanges

MAX_IDEMPOTENCY_KEY_LENGTH = 255


class ScheduleCursor(CursorPagination):
    """Pages of schedules, oldest first."""

    ordering = ("created_at", "id")
    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 200


class RunCursor(ScheduleCursor):
    """Pages of runs, newest slot first."""

    ordering = ("-slot", "-id")


class InstallView(APIView):
    """Base of every view below one extension: finds the caller's install and checks the tenant permission."""

    permission_classes = (IsTenantCaller,)
    read_methods: ClassVar[frozenset[str]] = frozenset({"GET", "HEAD", "OPTIONS"})

    def install(self, request: Request) -> ExtensionInstall:
        """The install the address names; another tenant's is as unknown as none."""
        caller = Caller(request)
        install = queries.find_install(tenant_ids=caller.tenant_ids, extension_ref=self.kwargs["extension_ref"])
        needed = "extension:read" if request.method in self.read_methods else "extension:write"
        if not caller.may(needed, install=install):
            raise PermissionDenied(f"This needs the permission {needed}")
        return install

    def id_in_address(self, name: str, what: str) -> UUID:
        """An id of the address; one that is no UUID names nothing."""
        found = queries.parse_uuid(self.kwargs[name])
        if found is None:
            raise NotFound(f"{what} not found")
        return found

    def schedule(self, install: ExtensionInstall) -> Schedule:
        """The schedule that the address names."""
        schedule_id = self.id_in_address("schedule_id", "Schedule")
        return queries.find_schedule(tenant_id=install.tenant_id, install_id=install.id, schedule_id=schedule_id)


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
        """List them, oldest first."""
        install = self.install(request)
        paginator = ScheduleCursor()
        page = paginator.paginate_queryset(
            queries.schedules_of(tenant_id=install.tenant_id, install_id=install.id),
            request,
            view=self,
        )
        now = datetime.now(UTC)
        return paginator.get_paginated_response(
            [
                serializers.render_schedule(schedule, install_enabled=install.is_enabled, now=now)
                for schedule in page or []
            ]
        )

    def post(self, request: Request, extension_ref: str) -> Response:
        """Create one."""
        install = self.install(request)
        schedule = services.create_schedule(
            tenant_id=install.tenant_id,
            install_id=install.id,
            changes=_read_changes(request),
            actor=Caller(request).actor,
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


class RunNowView(InstallView):
    """Requests by hand."""

    def post(self, request: Request, extension_ref: str, schedule_id: str) -> Response:
        """Ask for a run now; the same ``Idempotency-Key`` gives the same run back."""
        install = self.install(request)
        body = serializers.RunNowRequest(data=request.data)
        body.is_valid(raise_exception=True)
        run = runs.request_run_now(
            tenant_id=install.tenant_id,
            install_id=install.id,
            schedule_id=self.id_in_address("schedule_id", "Schedule"),
            actor=Caller(request).actor,
            idempotency_key=_idempotency_key(request),
            payload_override=body.validated_data.get("payload"),
        )
        return Response(serializers.render_run(run), status=status.HTTP_202_ACCEPTED)


class ScheduleRunsView(InstallView):
    """The runs of one schedule."""

    def get(self, request: Request, extension_ref: str, schedule_id: str) -> Response:
        """List them, newest slot first."""
        install = self.install(request)
        schedule = self.schedule(install)
        paginator = RunCursor()
        rows = queries.runs_of(tenant_id=install.tenant_id, install_id=install.id).filter(schedule=schedule)
        page = paginator.paginate_queryset(rows.defer("payload"), request, view=self)
        return paginator.get_paginated_response([serializers.render_run(run) for run in page or []])


class RunView(InstallView):
    """One run."""

    def get(self, request: Request, extension_ref: str, run_id: str) -> Response:
        """Show it."""
        install = self.install(request)
        run = queries.find_run(
            tenant_id=install.tenant_id,
            install_id=install.id,
            run_id=self.id_in_address("run_id", "Run"),
        )
        return Response(serializers.render_run(run))


class CancelRunView(InstallView):
    """Stopping a run."""

    def post(self, request: Request, extension_ref: str, run_id: str) -> Response:
        """Stop it: one that waits ends at once, one in flight within seconds."""
        install = self.install(request)
        run = runs.cancel_run(
            tenant_id=install.tenant_id,
            install_id=install.id,
            run_id=self.id_in_address("run_id", "Run"),
            actor=Caller(request).actor,
        )
        return Response(serializers.render_run(run), status=status.HTTP_202_ACCEPTED)


class ReplayRunView(InstallView):
    """Running a past run again."""

    def post(self, request: Request, extension_ref: str, run_id: str) -> Response:
        """Ask for it; the same ``Idempotency-Key`` gives the same run back."""
        install = self.install(request)
        run = runs.replay_run(
            tenant_id=install.tenant_id,
            install_id=install.id,
            run_id=self.id_in_address("run_id", "Run"),
            actor=Caller(request).actor,
            idempotency_key=_idempotency_key(request),
        )
        return Response(serializers.render_run(run), status=status.HTTP_202_ACCEPTED)


class BackfillPreviewView(InstallView):
    """What a backfill would run."""

    read_methods = InstallView.read_methods | {"POST"}

    def post(self, request: Request, extension_ref: str, schedule_id: str) -> Response:
        """Tell it, and change nothing."""
        install = self.install(request)
        body = serializers.BackfillRequest(data=request.data)
        body.is_valid(raise_exception=True)
        plan = runs.plan_backfill(
            tenant_id=install.tenant_id,
            install_id=install.id,
            schedule_id=self.id_in_address("schedule_id", "Schedule"),
            start=body.validated_data["start"],
            end=body.validated_data["end"],
        )
        slots = [serializers.rfc3339(slot) for slot in plan.slots]
        return Response({"count": len(slots), "already_succeeded": plan.already_run, "slots": slots})


class BackfillView(InstallView):
    """Running the slots of a past range."""

    def post(self, request: Request, extension_ref: str, schedule_id: str) -> Response:
        """Ask for it; the same ``Idempotency-Key`` adds nothing the second time."""
        install = self.install(request)
        body = serializers.BackfillRequest(data=request.data)
        body.is_valid(raise_exception=True)
        queued = runs.request_backfill(
            tenant_id=install.tenant_id,
            install_id=install.id,
            schedule_id=self.id_in_address("schedule_id", "Schedule"),
            actor=Caller(request).actor,
            idempotency_key=_idempotency_key(request),
            **body.validated_data,
        )
        body_out = {"count": len(queued), "run_ids": [str(run.id) for run in queued]}
        return Response(body_out, status=status.HTTP_202_ACCEPTED)


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


def _idempotency_key(request: Request) -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not 1 <= len(key) <= MAX_IDEMPOTENCY_KEY_LENGTH:
        raise InvalidFields.from_fields(
            {"Idempotency-Key": f"give 1 to {MAX_IDEMPOTENCY_KEY_LENGTH} characters, or leave the header out"}
        )
    return key
