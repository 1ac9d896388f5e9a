"""The admin API's runs: asked for, listed, shown, stopped, repeated, counted."""

from __future__ import annotations

from django.db.models import QuerySet
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from schedules import queries, runs, stats
from schedules.api import serializers
from schedules.api.authentication import Caller
from schedules.api.base import InstallView, RunCursor, idempotency_key
from schedules.models import ScheduleRun


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
            idempotency_key=idempotency_key(request),
            payload_override=body.validated_data.get("payload"),
        )
        return Response(serializers.render_run(run, with_payload=True), status=status.HTTP_202_ACCEPTED)


class ScheduleRunsView(InstallView):
    """The runs of one schedule."""

    def get(self, request: Request, extension_ref: str, schedule_id: str) -> Response:
        """List them, newest slot first."""
        install = self.install(request)
        schedule = self.schedule(install)
        rows = queries.runs_of(tenant_id=install.tenant_id, install_id=install.id)
        return _page_of(rows.filter(schedule=schedule), request, self)


class InstallRunsView(InstallView):
    """The runs of all schedules of an install, deleted ones included."""

    def get(self, request: Request, extension_ref: str) -> Response:
        """List them, newest slot first."""
        install = self.install(request)
        return _page_of(queries.runs_of(tenant_id=install.tenant_id, install_id=install.id), request, self)


def _page_of(rows: QuerySet[ScheduleRun], request: Request, view: APIView) -> Response:
    """A page of the runs that the query asks for."""
    query = request.query_params
    wanted = serializers.RunQuery(data=query.dict() | {"status": query.getlist("status")})
    wanted.is_valid(raise_exception=True)
    paginator = RunCursor()
    found = queries.filter_runs(rows, **wanted.validated_data)
    page = paginator.paginate_queryset(found.defer("payload"), request, view=view)
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
        return Response(serializers.render_run(run, with_payload=True))


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
        return Response(serializers.render_run(run, with_payload=True), status=status.HTTP_202_ACCEPTED)


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
            idempotency_key=idempotency_key(request),
        )
        return Response(serializers.render_run(run, with_payload=True), status=status.HTTP_202_ACCEPTED)


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
            idempotency_key=idempotency_key(request),
            **body.validated_data,
        )
        body_out = {"count": len(queued), "run_ids": [str(run.id) for run in queued]}
        return Response(body_out, status=status.HTTP_202_ACCEPTED)


class StatsView(InstallView):
    """Numbers of an install's runs, or of one schedule's."""

    def get(self, request: Request, extension_ref: str) -> Response:
        """Show them."""
        install = self.install(request)
        wanted = serializers.StatsQuery(data=request.query_params)
        wanted.is_valid(raise_exception=True)
        schedule_id = wanted.validated_data.get("schedule_id")
        if schedule_id is not None:
            queries.find_schedule(tenant_id=install.tenant_id, install_id=install.id, schedule_id=schedule_id)
        found = stats.read_stats(
            tenant_id=install.tenant_id,
            install_id=install.id,
            schedule_id=schedule_id,
            days=wanted.validated_data["days"],
        )
        return Response(serializers.render_stats(found))
