"""The admin API's schedules: what tenant administrators and their tools keep."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response

from schedules import preview, queries, services
from schedules.api import answers, requests, shapes
from schedules.api.authentication import Caller
from schedules.api.base import InstallView, answer_once, page_answer, read_nothing
from schedules.api.schema import IDEMPOTENCY_KEY, IF_MATCH, SCHEDULES, operation, page_of
from schedules.changes import ScheduleChanges
from schedules.models import ExtensionInstall, Schedule


class EndpointsView(InstallView):
    """The endpoints of the installed version."""

    @operation("list_endpoints", tag=SCHEDULES, answer=page_of(shapes.InstalledEndpoint))
    def get(self, request: Request, extension_ref: str) -> Response:
        """List the installed version's endpoints, by path and method."""
        endpoints = queries.endpoints_of(version_id=self.install(request).version_id)
        return Response(
            {
                "results": [
                    answers.render_endpoint(endpoint) | {"unschedulable_reason": endpoint.unschedulable_reason or None}
                    for endpoint in endpoints
                ],
                "next": None,
                "previous": None,
            }
        )


class SchedulesView(InstallView):
    """The schedules of one install."""

    parameters = {"GET": requests.ScheduleQuery}

    @operation(
        "list_schedules",
        tag=SCHEDULES,
        answer=page_of(shapes.Schedule),
        parameters=[requests.ScheduleQuery],
        refuses=[400],
    )
    def get(self, request: Request, extension_ref: str) -> Response:
        """List an install's schedules.

        The oldest come first unless ``order`` says otherwise.
        """
        install = self.install(request)
        rows = queries.schedules_of(tenant_id=install.tenant_id, install_id=install.id)
        found = queries.filter_schedules(rows, **requests.ScheduleQuery.filters(self.query))
        now = datetime.now(UTC)
        render = partial(answers.render_schedule, install_enabled=install.is_enabled, now=now)
        return page_answer(self, request, found, orders=requests.SCHEDULE_ORDERS, render=render)

    @operation(
        "create_schedule",
        tag=SCHEDULES,
        request=requests.ScheduleCreate,
        answer=shapes.Schedule,
        status=201,
        parameters=[IDEMPOTENCY_KEY],
        refuses=[403, 409],
        etag=True,
    )
    def post(self, request: Request, extension_ref: str) -> Response:
        """Create a schedule.

        Its mirror in Temporal follows within a moment: ``sync_state`` is ``pending`` in this answer.
        """
        install = self.install(request)
        changes = _read_changes(request, requests.ScheduleCreate)

        def create() -> dict[str, Any]:
            schedule = services.create_schedule(
                tenant_id=install.tenant_id, install_id=install.id, changes=changes, actor=Caller(request).actor
            )
            return answers.render_schedule(schedule, install_enabled=install.is_enabled, now=datetime.now(UTC))

        body = answer_once(request, install, operation="create_schedule", work=create)
        return Response(body, status=status.HTTP_201_CREATED, headers={"ETag": f'"{body["revision"]}"'})


class DisableAllView(InstallView):
    """Switching all of an install's schedules off."""

    @operation("disable_all_schedules", tag=SCHEDULES, answer=shapes.DisabledSchedules, refuses=[403])
    def post(self, request: Request, extension_ref: str) -> Response:
        """Disable every schedule of an install.

        A repeat finds none that is enabled.
        """
        read_nothing(request)
        install = self.install(request)
        disabled = services.disable_all(tenant_id=install.tenant_id, install_id=install.id, actor=Caller(request).actor)
        return Response({"disabled": len(disabled), "schedule_ids": [str(schedule.id) for schedule in disabled]})


class PreviewView(InstallView):
    """What a schedule would do."""

    read_methods = InstallView.read_methods | {"POST"}

    @operation("preview_schedule", tag=SCHEDULES, request=requests.PreviewRequest, answer=shapes.Preview, refuses=[403])
    def post(self, request: Request, extension_ref: str) -> Response:
        """Tell what a schedule would do.

        Its next times, the expression in words, what clock changes do to it. Changes nothing.
        """
        install = self.install(request)
        body = requests.PreviewRequest(data=request.data)
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
        return Response(answers.render_preview(shown))


class LiftHoldView(InstallView):
    """Lifting an operator's hold."""

    @operation("lift_hold", tag=SCHEDULES, answer=shapes.Schedule, etag=True, refuses=[403])
    def post(self, request: Request, extension_ref: str, schedule_id: str) -> Response:
        """Lift the pause that an operator set on a schedule in Temporal.

        Slots run again from now on; those that came meanwhile stay missed. A repeat changes nothing.
        """
        install = self.install(request)
        read_nothing(request)
        schedule = services.lift_hold(
            tenant_id=install.tenant_id,
            install_id=install.id,
            schedule_id=self.id_in_address("schedule_id", "Schedule"),
            actor=Caller(request).actor,
        )
        return answer_schedule(install, schedule)


class ScheduleView(InstallView):
    """One schedule."""

    @operation("get_schedule", tag=SCHEDULES, answer=shapes.Schedule, etag=True)
    def get(self, request: Request, extension_ref: str, schedule_id: str) -> Response:
        """Show a schedule."""
        install = self.install(request)
        return answer_schedule(install, self.schedule(install))

    @operation(
        "update_schedule",
        tag=SCHEDULES,
        request=requests.ScheduleWrite,
        answer=shapes.Schedule,
        etag=True,
        parameters=[IF_MATCH],
        refuses=[403, 409, 412],
    )
    def patch(self, request: Request, extension_ref: str, schedule_id: str) -> Response:
        """Change the given members of a schedule.

        ``If-Match`` with the revision guards against overwriting somebody else's change.
        """
        install = self.install(request)
        schedule = services.update_schedule(
            tenant_id=install.tenant_id,
            install_id=install.id,
            schedule_id=self.id_in_address("schedule_id", "Schedule"),
            changes=_read_changes(request, requests.ScheduleWrite),
            actor=Caller(request).actor,
            expected_revisions=_expected_revisions(request),
        )
        return answer_schedule(install, schedule)

    @operation("delete_schedule", tag=SCHEDULES, status=204, parameters=[IF_MATCH], refuses=[403, 412])
    def delete(self, request: Request, extension_ref: str, schedule_id: str) -> Response:
        """Delete a schedule.

        Its runs stay for as long as the tenant keeps them.
        """
        install = self.install(request)
        services.delete_schedule(
            tenant_id=install.tenant_id,
            install_id=install.id,
            schedule_id=self.id_in_address("schedule_id", "Schedule"),
            actor=Caller(request).actor,
            expected_revisions=_expected_revisions(request),
        )
        return Response(status=status.HTTP_204_NO_CONTENT)


def answer_schedule(install: ExtensionInstall, schedule: Schedule) -> Response:
    """The schedule with its revision as the entity tag."""
    body = answers.render_schedule(schedule, install_enabled=install.is_enabled, now=datetime.now(UTC))
    return Response(body, headers={"ETag": f'"{schedule.revision}"'})


def _read_changes(request: Request, shape: type[requests.ScheduleWrite]) -> ScheduleChanges:
    body = shape(data=request.data)
    body.is_valid(raise_exception=True)
    return cast("ScheduleChanges", dict(body.validated_data))


def _expected_revisions(request: Request) -> frozenset[int] | None:
    """The revisions of an ``If-Match`` header (RFC 9110, section 13.1.1), or None where anything matches.

    A weak tag never matches there, and what is no revision of ours matches none either.
    """
    value = request.headers.get("If-Match")
    if value is None or value.strip() == "*":
        return None
    tags = (tag.strip() for tag in value.split(","))
    return frozenset(int(tag[1:-1]) for tag in tags if re.fullmatch(r'"[0-9]{1,9}"', tag, re.ASCII))
