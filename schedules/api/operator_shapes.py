"""The shapes of what operators are answered; see `shapes`."""

from __future__ import annotations

from rest_framework import serializers

from schedules.api.shapes import INSTALL, Shape, moment, words
from schedules.models import KillScope


class KillSwitch(Shape):
    """What is stopped, since when, why and by whom."""

    id = serializers.UUIDField()
    scope = serializers.ChoiceField(choices=KillScope.choices)
    target = words("How people call it; empty for the whole platform.")
    target_id = serializers.UUIDField(allow_null=True)
    reason = words()
    actor = words("Who stopped it.")
    created_at = moment("Since when it stands.")

    example = {
        "id": "2f0c7a1e-58b7-4c57-8d0e-0f6d5f7b1a22",
        "scope": "extension",
        "target": "acme.reports",
        "target_id": INSTALL,
        "reason": "it floods a partner",
        "actor": "operator",
        "created_at": "2026-11-21T09:00:00Z",
    }


class KillSwitches(Shape):
    """The switches that stand."""

    results = KillSwitch(many=True)

    example = {"results": [KillSwitch.example]}
