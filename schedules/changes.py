"""What a write may change of a schedule: each member is checked and set here, whoever asks.

Rules across rows, such as unique names and quotas, are the services'.
"""

from __future__ import annotations

import unicodedata
from typing import Any, TypedDict, cast
from uuid import UUID

from django.conf import settings

from schedules import cron, payloads, policies, queries
from schedules.errors import InvalidFields
from schedules.models import MAX_NAME_LENGTH, ApiEndpoint, ExtensionInstall, Schedule


class ScheduleChanges(TypedDict, total=False):
    """The writable members of a schedule; an absent one is left alone (or takes its default on create).

    ``endpoint`` is a selector ("METHOD /path" or a path), ``endpoint_id`` names the endpoint by id; one of the two.
    """

    endpoint: str
    endpoint_id: UUID
    name: str | None
    cron: str
    timezone: str | None
    enabled: bool
    payload: Any
    overlap_policy: str
    catch_up_policy: str
    retry_max_attempts: int
    retry_first_delay_seconds: int
    retry_factor: float
    retry_longest_delay_seconds: int
    run_deadline_seconds: int
    attempt_timeout_seconds: int | None
    pause_after_failures: int | None


def apply_changes(schedule: Schedule, changes: ScheduleChanges, *, install: ExtensionInstall) -> None:
    """Set the members that ``changes`` names; raises InvalidFields with all that are wrong at once."""
    wrong: dict[str, str] = {}
    try:
        _apply_endpoint(schedule, changes, install=install)
    except InvalidFields as error:
        wrong |= error.fields
    wrong |= _apply_time(schedule, changes, default_zone=install.tenant.timezone or "UTC")
    if "name" in changes:
        name = (changes["name"] or "").strip()
        if problem := _problem_with_name(name):
            wrong["name"] = problem
        schedule.name = name or None
    if "payload" in changes:
        payload = None if changes["payload"] == "" else changes["payload"]
        if problem := payloads.problem_with_payload(payload):
            wrong["payload"] = problem
        schedule.payload = payload
    wrong |= _apply_policies(schedule, changes)
    if "enabled" in changes:
        if changes["enabled"] and schedule.endpoint_id is None and "endpoint" not in wrong:
            wrong.setdefault("endpoint_id", f"{queries.ENDPOINT_REFUSED}: choose an endpoint before enabling")
        if changes["enabled"]:
            schedule.disabled_reason = ""
        schedule.enabled = changes["enabled"]
    if wrong:
        raise InvalidFields.from_fields(wrong)


def _apply_policies(schedule: Schedule, changes: ScheduleChanges) -> dict[str, str]:
    """Set the policies that are named; returns what is wrong with them by member."""
    wrong: dict[str, str] = {}
    for member in policies.MEMBERS & changes.keys():
        value = cast("dict[str, Any]", changes)[member]
        if problem := policies.problem_with(member, value, platform_timeout_ms=settings.EXT_GATEWAY_TIMEOUT_MS):
            wrong[member] = problem
        setattr(schedule, member, value)
    return wrong


def _apply_time(schedule: Schedule, changes: ScheduleChanges, *, default_zone: str) -> dict[str, str]:
    """Set cron and zone; returns what is wrong with them by member."""
    wrong: dict[str, str] = {}
    if "cron" in changes or schedule.cron == "":
        try:
            schedule.cron = check_cron(changes.get("cron", ""))
        except cron.CronError as error:
            wrong["cron"] = str(error)
    if "timezone" in changes:
        try:
            schedule.timezone = cron.parse_zone(changes["timezone"] or default_zone).key
        except cron.CronError as error:
            wrong["timezone"] = str(error)
    return wrong


def _apply_endpoint(schedule: Schedule, changes: ScheduleChanges, *, install: ExtensionInstall) -> None:
    if "endpoint_id" in changes and "endpoint" in changes:
        raise InvalidFields.from_fields({"endpoint": "give endpoint or endpoint_id, not both"})
    if "endpoint_id" in changes:
        # Only the installed version's endpoints: an id of another version or tenant is as good as unknown.
        endpoint = ApiEndpoint.objects.filter(version_id=install.version_id, id=changes["endpoint_id"]).first()
        if endpoint is None:
            raise InvalidFields.from_fields({"endpoint_id": queries.ENDPOINT_REFUSED})
    elif "endpoint" in changes:
        endpoint = queries.find_endpoint(version_id=install.version_id, selector=changes["endpoint"])
    elif schedule.endpoint_path == "":
        raise InvalidFields.from_fields({"endpoint": f"{queries.ENDPOINT_REFUSED}: name an endpoint"})
    else:
        return
    if not endpoint.schedulable:
        member = "endpoint_id" if "endpoint_id" in changes else "endpoint"
        raise InvalidFields.from_fields(
            {member: f"{queries.ENDPOINT_REFUSED}: {endpoint}: {endpoint.unschedulable_reason}"}
        )
    schedule.endpoint = endpoint
    schedule.endpoint_method, schedule.endpoint_path = endpoint.method, endpoint.path


def check_cron(text: str) -> str:
    """The normalised expression; raises CronError for a wrong one and for one that fires too often."""
    expression = cron.parse(text)
    gap, floor = (
        cron.shortest_gap_seconds(expression),
        int(settings.SCHEDULER_MIN_INTERVAL_SECONDS),
    )
    if gap < floor:
        raise cron.CronError(
            f"Cron too frequent: {expression.text} fires {gap} seconds apart, at least {floor} are allowed"
        )
    return expression.text


def _problem_with_name(name: str) -> str:
    if len(name) > MAX_NAME_LENGTH:
        return f"name may have at most {MAX_NAME_LENGTH} characters"
    if any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in name):
        return "name may not hold control characters"
    return ""
