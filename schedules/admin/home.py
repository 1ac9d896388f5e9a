"""The home page: what needs attention first."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any, Final

from django.http import HttpRequest

from schedules import overview
from schedules.admin import charts, display, kill_switch_pages
from schedules.admin.base import is_member, is_superuser, may_write, visible_tenants
from schedules.models import ExtensionInstall, RunStatus

DUE_SHOWN: Final = 10


def context(request: HttpRequest) -> dict[str, Any]:
    """What the page shows: the user's tenants, or all of them for an operator."""
    now = datetime.now(UTC)
    if not (is_superuser(request.user) or is_member(request.user)):
        return {"has_no_tenant": True}
    tenants = visible_tenants(request.user)
    counts = overview.runs_by_hour(tenants, now=now)
    totals: dict[str, int] = {}
    for hour in counts.values():
        for status, count in hour.items():
            totals[status] = totals.get(status, 0) + count
    succeeded = totals.get(RunStatus.SUCCEEDED, 0)
    failed = sum(totals.get(status, 0) for status in overview.FAILED)
    installs = ExtensionInstall.objects.all()
    # All that are known, so that the page can say how many it leaves out.
    due = overview.due_within_the_hour(tenants, now=now, shown=sys.maxsize)
    return {
        "stopped": kill_switch_pages.notices(request, kill_switch_pages.over_installs(tenants)),
        "concerns": overview.concerns(tenants, now=now),
        "due": due[:DUE_SHOWN],
        "due_left": max(len(due) - DUE_SHOWN, 0),
        "is_due_cut": len({schedule.id for _, schedule in due}) >= overview.MAX_CANDIDATES,
        "chart": charts.hours_chart(counts, end=now),
        "success_rate": display.percentage(succeeded, succeeded + failed),
        "succeeded": succeeded,
        "failed": failed,
        "missed": totals.get(RunStatus.MISSED, 0),
        "has_installs": (installs if tenants is None else installs.filter(tenant_id__in=tenants)).exists(),
        "may_write": may_write(request.user),
        "is_operator": is_superuser(request.user),
        "now": now,
    }
