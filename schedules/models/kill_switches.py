"""What operators have stopped, and why."""

from __future__ import annotations

import uuid
from typing import Final

from django.db import models
from django.db.models.functions import Now

from schedules.models.choices import KillScope

# What a switch for the whole platform is about.
EVERYTHING: Final = uuid.UUID(int=0)
MAX_KILL_REASON_LENGTH: Final = 200


class KillSwitch(models.Model):
    """While it stands, no call of what it is about begins. Read by every claim, so it needs nobody to carry it out."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    scope = models.CharField(max_length=16, choices=KillScope.choices)
    target_id = models.UUIDField(default=EVERYTHING, help_text="The tenant, extension or version.")
    target = models.CharField(max_length=512, help_text="How people call it.")
    reason = models.CharField(max_length=MAX_KILL_REASON_LENGTH)
    source = models.CharField(max_length=16, editable=False)
    actor = models.CharField(max_length=256, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        verbose_name = "kill switch"
        verbose_name_plural = "kill switches"
        ordering = ("-created_at", "id")
        constraints = [
            models.UniqueConstraint(fields=("scope", "target_id"), name="a_thing_has_one_kill_switch"),
        ]

    def __str__(self) -> str:
        return f"{self.get_scope_display()} {self.target}".strip()
