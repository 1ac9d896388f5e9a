"""The shapes of what the upgrade's routes answer; see `shapes`."""

from __future__ import annotations

from rest_framework import serializers

from schedules.api.shapes import INSTALL, SCHEDULE, Error, Shape, moment, words
from schedules.remap import Change, Fate, Ground

DIGEST = "4be1c5f0b5a1c2a0c6b0d0a3c4f1de9a7c5b0f7f6b1b6a8d5d2a9e0f3c1b7d24"


class Suggestion(Shape):
    """An endpoint of the other version that may be meant instead, and on what ground."""

    endpoint = words("`METHOD /path`, as `remap` takes it.")
    ground = serializers.ChoiceField(choices=[(ground.value, ground.value) for ground in Ground])

    example = {"endpoint": "POST /api/v2/heartbeat", "ground": "same handler"}


class PlannedSchedule(Shape):
    """What becomes of one schedule."""

    schedule_id = serializers.UUIDField()
    name = words(allow_null=True)
    enabled = serializers.BooleanField(help_text="Whether it is enabled now.")
    next_run_at = moment("When it is due next, as things are now.", allow_null=True)
    calls = words("What it calls now, `METHOD /path`.")
    will_call = words("What it will call; null where that is nothing.", allow_null=True)
    endpoint_id = serializers.UUIDField(allow_null=True, help_text="Of what it will call.")
    fate = serializers.ChoiceField(
        choices=[(fate.value, fate.value) for fate in Fate],
        help_text="`remapped`: another handler answers the same method and path, or another endpoint was chosen.",
    )
    change = serializers.ChoiceField(
        choices=[(change.value, change.value) for change in Change],
        help_text="`block` keeps the upgrade from being applied; `detach`: it is disabled already, and calls nothing.",
    )
    reason = words("Why it has nowhere to go.", allow_null=True)
    suggestions = Suggestion(many=True)

    example = {
        "schedule_id": SCHEDULE,
        "name": "Heartbeat",
        "enabled": True,
        "next_run_at": "2026-11-22T01:30:00Z",
        "calls": "POST /api/heartbeat",
        "will_call": None,
        "endpoint_id": None,
        "fate": "missing",
        "change": "block",
        "reason": "the version does not declare it",
        "suggestions": [Suggestion.example],
    }


class PlanCounts(Shape):
    """How many schedules have each fate, and what is done to them."""

    unchanged = serializers.IntegerField()
    remapped = serializers.IntegerField()
    missing = serializers.IntegerField()
    not_schedulable = serializers.IntegerField()
    disabled = serializers.IntegerField()
    detached = serializers.IntegerField(help_text="Those that were disabled before, and call nothing from now on.")
    enabled = serializers.IntegerField()
    blocking = serializers.IntegerField()

    example = {
        "unchanged": 0,
        "remapped": 0,
        "missing": 1,
        "not_schedulable": 0,
        "disabled": 0,
        "detached": 0,
        "enabled": 0,
        "blocking": 1,
    }


class CapabilityChanges(Shape):
    """What the other version asks for beyond the installed one, and what it does not ask for any more."""

    added = serializers.ListField(child=serializers.CharField())
    removed = serializers.ListField(child=serializers.CharField())

    example = {"added": ["cap:mail.send"], "removed": []}


class UpgradePlan(Shape):
    """What an upgrade would do."""

    install_id = serializers.UUIDField()
    from_version = words()
    to_version = words()
    plan_token = words("Stands for this very plan; see `planToken`.")
    can_apply = serializers.BooleanField(help_text="Whether nothing blocks it.")
    counts = PlanCounts()
    capabilities = CapabilityChanges()
    warnings = serializers.ListField(child=serializers.CharField())
    schedules = PlannedSchedule(many=True)

    example = {
        "install_id": INSTALL,
        "from_version": "1.4.0",
        "to_version": "2.0.0",
        "plan_token": DIGEST,
        "can_apply": False,
        "counts": PlanCounts.example,
        "capabilities": CapabilityChanges.example,
        "warnings": [],
        "schedules": [PlannedSchedule.example],
    }


class Upgraded(Shape):
    """What an upgrade has done."""

    success = serializers.BooleanField()
    installId = serializers.UUIDField()  # noqa: N815 - the contract's
    previousVersion = words()  # noqa: N815
    version = words()
    counts = PlanCounts()
    disabledScheduleIds = serializers.ListField(child=serializers.UUIDField())  # noqa: N815
    enabledScheduleIds = serializers.ListField(  # noqa: N815
        child=serializers.UUIDField(), help_text="Those that an earlier upgrade had disabled."
    )

    example = {
        "success": True,
        "installId": INSTALL,
        "previousVersion": "1.4.0",
        "version": "2.0.0",
        "counts": PlanCounts.example | {"disabled": 1, "blocking": 0},
        "disabledScheduleIds": [SCHEDULE],
        "enabledScheduleIds": [],
    }


class MissingEndpoint(Shape):
    """A schedule whose endpoint the version does not offer."""

    scheduleId = serializers.UUIDField()  # noqa: N815
    method = words()
    path = words()

    example = {"scheduleId": SCHEDULE, "method": "POST", "path": "/api/heartbeat"}


class UpgradeRefused(Error):
    """Nothing was changed: schedules would have nowhere to go, or the plan is not the one that was shown."""

    success = serializers.BooleanField()
    missing = MissingEndpoint(many=True, required=False, help_text="With `SCHEDULE_REMAP_FAILED`.")
    plan = UpgradePlan(required=False, help_text="The new one, with `UPGRADE_PLAN_CHANGED`.")

    example = {
        "success": False,
        "code": "SCHEDULE_REMAP_FAILED",
        "message": "1 schedule calls an endpoint that version 2.0.0 does not offer",
        "fields": {},
        "data": {},
        "missing": [MissingEndpoint.example],
    }
