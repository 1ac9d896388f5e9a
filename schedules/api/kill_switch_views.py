"""Kill switches, for operators: superusers who are signed in."""

from __future__ import annotations

from typing import Any

from rest_framework import permissions, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from schedules import kill_switches, queries
from schedules.api import answers, operator_shapes, requests
from schedules.api.authentication import Caller
from schedules.api.base import read_nothing
from schedules.api.schema import OPERATORS, operation
from schedules.errors import NotFound


class IsOperator(permissions.BasePermission):
    """Superusers by session. No tenant's key, whatever its role, stands for the platform."""

    message = "This is for operators"

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Whether it is one."""
        return request.auth is None and bool(request.user.is_active and request.user.is_superuser)


class OperatorView(APIView):
    """Base of the operators' views."""

    permission_classes = (permissions.IsAuthenticated | IsOperator, IsOperator)


class KillSwitchesView(OperatorView):
    """The switches that stand."""

    @operation("list_kill_switches", tag=OPERATORS, answer=operator_shapes.KillSwitches, refuses=[403])
    def get(self, request: Request) -> Response:
        """List the kill switches that stand, the newest first."""
        return Response({"results": [answers.render_kill_switch(switch) for switch in kill_switches.standing()]})

    @operation(
        "engage_kill_switch",
        tag=OPERATORS,
        request=requests.KillSwitchEngage,
        answer=operator_shapes.KillSwitch,
        status=201,
        refuses=[403],
    )
    def post(self, request: Request) -> Response:
        """Stop all runs of a tenant, an extension, a version or the whole platform.

        Holds from the next claim on, whether or not Temporal answers. A repeat leaves the first switch as it is.
        """
        body = requests.KillSwitchEngage(data=request.data)
        body.is_valid(raise_exception=True)
        wanted: dict[str, Any] = body.validated_data
        target = kill_switches.find_target(scope=wanted["scope"], name=wanted["target"])
        switch = kill_switches.engage(target, reason=wanted["reason"], actor=Caller(request).actor)
        return Response(answers.render_kill_switch(switch), status=status.HTTP_201_CREATED)


class KillSwitchView(OperatorView):
    """One switch."""

    @operation("release_kill_switch", tag=OPERATORS, status=204, refuses=[403])
    def delete(self, request: Request, switch_id: str) -> Response:
        """Let it run again.

        Slots of the time before stay as they ended.
        """
        read_nothing(request)
        found = queries.parse_uuid(switch_id)
        if found is None:
            raise NotFound("There is no such kill switch")
        kill_switches.release(switch_id=found, actor=Caller(request).actor)
        return Response(status=status.HTTP_204_NO_CONTENT)
