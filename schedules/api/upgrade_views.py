"""Taking an extension to another version, and looking at what that would do first."""

from __future__ import annotations

from datetime import UTC, datetime

from rest_framework.request import Request
from rest_framework.response import Response

from schedules import queries, upgrades
from schedules.api import answers, errors, requests, upgrade_shapes
from schedules.api.authentication import Caller
from schedules.api.base import InstallView, TenantCallerView
from schedules.api.schema import SCHEDULES, operation
from schedules.errors import RemapFailed


class UpgradePreviewView(InstallView):
    """What another version would do to an install's schedules."""

    read_methods = InstallView.read_methods | {"POST"}

    @operation(
        "preview_upgrade",
        tag=SCHEDULES,
        request=requests.UpgradePreview,
        answer=upgrade_shapes.UpgradePlan,
        refuses=[403],
    )
    def post(self, request: Request, extension_ref: str) -> Response:
        """Tell what an upgrade would do.

        Each schedule with where it would go, and what is suggested where that is nowhere. Changes nothing.
        """
        install = self.install(request)
        body = requests.UpgradePreview(data=request.data)
        body.is_valid(raise_exception=True)
        plan = upgrades.preview(install=install, version=body.validated_data["version"])
        return Response(answers.render_plan(plan, now=datetime.now(UTC)))


class UpgradeView(TenantCallerView):
    """Taking an install to another version. Its body and answers are in camelCase, as its callers know them."""

    @operation(
        "upgrade_extension",
        tag=SCHEDULES,
        request=requests.Upgrade,
        answer=upgrade_shapes.Upgraded,
        refuses={403: None, 409: upgrade_shapes.UpgradeRefused},
    )
    def post(self, request: Request) -> Response:
        """Take an extension to another version, or back to an earlier one.

        All its schedules go along or nothing changes. A repeat finds the version installed and does nothing.
        """
        body = requests.Upgrade(data=request.data)
        body.is_valid(raise_exception=True)
        wanted = body.validated_data
        caller = Caller(request)
        install = queries.find_install(tenant_ids=caller.tenant_ids, extension_ref=wanted["registryId"])
        self.check(request, tenant_id=install.tenant_id)
        options = upgrades.Options(
            remap=wanted["remap"],
            disable_missing=wanted["disableMissingSchedules"],
            plan_token=wanted["planToken"],
        )
        try:
            _, plan = upgrades.upgrade(
                tenant_id=install.tenant_id,
                install_id=install.id,
                version=wanted["version"],
                options=options,
                actor=caller.actor,
            )
        except RemapFailed as error:
            body_of = errors.error_body(error.code, error.message)
            return Response({"success": False, **body_of, "missing": error.data["missing"]}, status=error.status)
        except upgrades.PlanChanged as error:
            shown = answers.render_plan(error.plan, now=datetime.now(UTC))
            return Response({"success": False, **errors.body_of(error), "plan": shown}, status=error.status)
        return Response(answers.render_upgrade(plan))
