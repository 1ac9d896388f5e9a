"""The admin API's runs: asked for, listed, shown, stopped, repeated, counted."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response

from schedules import queries, runs, stats
from schedules.api import answers, requests, shapes
from schedules.api.authentication import Caller
from schedules.api.base import InstallView, answer_once, idempotency_key, page_answer, read_nothing
from schedules.api.schema import IDEMPOTENCY_KEY, RUNS, operation, page_of
from schedules.models import ScheduleRun


class RunNowView(InstallView):
    """Requests by hand."""

    @operation(
        "run_now",
        tag=RUNS,
        request=requests.RunNowRequest,
        answer=shapes.RunWithPayload,
        status=202,
        parameters=[IDEMPOTENCY_KEY],
        refuses=[403, 409, 429],
    )
    def post(self, request: Request, extension_ref: str, schedule_id: str) -> Response:
        """Run a schedule now, whether it is enabled or not.

        The same ``Idempotency-Key`` gives the same run back. A payload overrides the schedule's for this run.
        """
        install = self.install(request)
        body = requests.RunNowRequest(data=request.data)
        body.is_valid(raise_exception=True)
        run = runs.request_run_now(
            tenant_id=install.tenant_id,
            install_id=install.id,
            schedule_id=self.id_in_address("schedule_id", "Schedule"),
            actor=Caller(request).actor,
            idempotency_key=idempotency_key(request),
            payload_override=body.validated_data.get("payload"),
        )
        return Response(answers.render_run(run, with_payload=True), status=status.HTTP_202_ACCEPTED)


class ScheduleRunsView(InstallView):
    """The runs of one schedule."""

    parameters = {"GET": requests.RunQuery}

    @operation(
        "list_schedule_runs", tag=RUNS, answer=page_of(shapes.Run), parameters=[requests.RunQuery], refuses=[400]
    )
    def get(self, request: Request, extension_ref: str, schedule_id: str) -> Response:
        """List a schedule's runs, newest slot first."""
        install = self.install(request)
        schedule = self.schedule(install)
        rows = queries.runs_of(tenant_id=install.tenant_id, install_id=install.id)
        return _page_of(rows.filter(schedule=schedule), request, self)


class InstallRunsView(InstallView):
    """The runs of all schedules of an install, deleted ones included."""

    parameters = {"GET": requests.RunQuery}

    @operation("list_runs", tag=RUNS, answer=page_of(shapes.Run), parameters=[requests.RunQuery], refuses=[400])
    def get(self, request: Request, extension_ref: str) -> Response:
        """List the runs of all schedules of an install, deleted ones included, newest slot first."""
        install = self.install(request)
        return _page_of(queries.runs_of(tenant_id=install.tenant_id, install_id=install.id), request, self)


def _page_of(rows: QuerySet[ScheduleRun], request: Request, view: InstallView) -> Response:
    """A page of the runs that the query asks for."""
    found = queries.filter_runs(rows, **requests.RunQuery.filters(view.query)).defer("payload")
    return page_answer(view, request, found, orders=requests.RUN_ORDERS, render=answers.render_run)


class RunView(InstallView):
    """One run."""

    @operation("get_run", tag=RUNS, answer=shapes.RunWithPayload)
    def get(self, request: Request, extension_ref: str, run_id: str) -> Response:
        """Show a run."""
        install = self.install(request)
        run = queries.find_run(
            tenant_id=install.tenant_id,
            install_id=install.id,
            run_id=self.id_in_address("run_id", "Run"),
        )
        return Response(answers.render_run(run, with_payload=True))


class CancelRunView(InstallView):
    """Stopping a run."""

    @operation("cancel_run", tag=RUNS, answer=shapes.RunWithPayload, status=202, refuses=[403, 409])
    def post(self, request: Request, extension_ref: str, run_id: str) -> Response:
        """Stop a run.

        One that waits ends at once, one in flight within seconds.
        """
        install = self.install(request)
        read_nothing(request)
        run = runs.cancel_run(
            tenant_id=install.tenant_id,
            install_id=install.id,
            run_id=self.id_in_address("run_id", "Run"),
            actor=Caller(request).actor,
        )
        return Response(answers.render_run(run, with_payload=True), status=status.HTTP_202_ACCEPTED)


class ReplayRunView(InstallView):
    """Running a past run again."""

    @operation(
        "replay_run",
        tag=RUNS,
        answer=shapes.RunWithPayload,
        status=202,
        parameters=[IDEMPOTENCY_KEY],
        refuses=[400, 403, 409, 429],
    )
    def post(self, request: Request, extension_ref: str, run_id: str) -> Response:
        """Run a past run again, with the payload that it had.

        The same ``Idempotency-Key`` gives the same run back.
        """
        install = self.install(request)
        read_nothing(request)
        run = runs.replay_run(
            tenant_id=install.tenant_id,
            install_id=install.id,
            run_id=self.id_in_address("run_id", "Run"),
            actor=Caller(request).actor,
            idempotency_key=idempotency_key(request),
        )
        return Response(answers.render_run(run, with_payload=True), status=status.HTTP_202_ACCEPTED)


class BackfillPreviewView(InstallView):
    """What a backfill would run."""

    read_methods = InstallView.read_methods | {"POST"}

    @operation(
        "preview_backfill", tag=RUNS, request=requests.BackfillRequest, answer=shapes.BackfillPlan, refuses=[403]
    )
    def post(self, request: Request, extension_ref: str, schedule_id: str) -> Response:
        """Tell what a backfill would run, and change nothing."""
        install = self.install(request)
        body = requests.BackfillRequest(data=request.data)
        body.is_valid(raise_exception=True)
        plan = runs.plan_backfill(
            tenant_id=install.tenant_id,
            install_id=install.id,
            schedule_id=self.id_in_address("schedule_id", "Schedule"),
            start=body.validated_data["start"],
            end=body.validated_data["end"],
        )
        slots = [answers.rfc3339(slot) for slot in plan.slots]
        return Response({"count": len(slots), "already_succeeded": plan.already_run, "slots": slots})


class BackfillView(InstallView):
    """Running the slots of a past range."""

    @operation(
        "backfill",
        tag=RUNS,
        request=requests.BackfillRequest,
        answer=shapes.BackfillQueued,
        status=202,
        parameters=[IDEMPOTENCY_KEY],
        refuses=[403, 409, 429],
    )
    def post(self, request: Request, extension_ref: str, schedule_id: str) -> Response:
        """Run the slots of a past range."""
        install = self.install(request)
        body = requests.BackfillRequest(data=request.data)
        body.is_valid(raise_exception=True)
        wanted = self.id_in_address("schedule_id", "Schedule")

        def ask() -> dict[str, Any]:
            queued = runs.request_backfill(
                tenant_id=install.tenant_id,
                install_id=install.id,
                schedule_id=wanted,
                actor=Caller(request).actor,
                **body.validated_data,
            )
            return {"count": len(queued), "run_ids": [str(run.id) for run in queued]}

        answer = answer_once(request, install, operation=f"backfill {wanted}", work=ask)
        return Response(answer, status=status.HTTP_202_ACCEPTED)


class StatsView(InstallView):
    """Numbers of an install's runs, or of one schedule's."""

    parameters = {"GET": requests.StatsQuery}

    @operation("get_stats", tag=RUNS, answer=shapes.Stats, parameters=[requests.StatsQuery], refuses=[400])
    def get(self, request: Request, extension_ref: str) -> Response:
        """Count an install's runs, or one schedule's."""
        install = self.install(request)
        schedule_id = self.query.get("schedule_id")
        if schedule_id is not None:
            queries.find_schedule(tenant_id=install.tenant_id, install_id=install.id, schedule_id=schedule_id)
        found = stats.read_stats(
            tenant_id=install.tenant_id,
            install_id=install.id,
            schedule_id=schedule_id,
            days=self.query["days"],
        )
        return Response(answers.render_stats(found))
