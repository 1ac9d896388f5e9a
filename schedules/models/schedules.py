"""Schedules, and what is left of deleted ones until their mirrors are gone."""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from schedules.models.choices import (
    MAX_NAME_LENGTH,
    MAX_PATH_LENGTH,
    CatchUpPolicy,
    OverlapPolicy,
    RunStatus,
    SyncState,
)
from schedules.models.registry import ApiEndpoint, ExtensionInstall, Tenant


class Schedule(models.Model):
    """When an install's endpoint is called, and with what.

    ``revision`` counts what people changed (it is the ETag), ``generation`` counts changes of the state that the
    mirror must show, and ``synced_generation`` is the one that the mirror is known to show.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, db_index=False, related_name="schedules")
    install = models.ForeignKey(
        ExtensionInstall,
        on_delete=models.PROTECT,
        db_index=False,
        related_name="schedules",
    )
    endpoint = models.ForeignKey(ApiEndpoint, on_delete=models.PROTECT, null=True, related_name="schedules")
    endpoint_method = models.CharField(max_length=8, editable=False)
    endpoint_path = models.CharField(max_length=MAX_PATH_LENGTH, editable=False)
    name = models.CharField(max_length=MAX_NAME_LENGTH, null=True, blank=True)
    cron = models.CharField(max_length=128)
    timezone = models.CharField(max_length=64)
    enabled = models.BooleanField(default=True)
    disabled_reason = models.CharField(max_length=256, blank=True)
    disabled_at_revision = models.PositiveIntegerField(
        null=True,
        editable=False,
        help_text="The revision at which an upgrade disabled it; while it is the current one, the way back enables it.",
    )
    payload = models.JSONField(null=True, blank=True)
    overlap_policy = models.CharField(
        max_length=16, choices=OverlapPolicy.choices, default=OverlapPolicy.SKIP, db_default=OverlapPolicy.SKIP
    )
    catch_up_policy = models.CharField(
        max_length=16, choices=CatchUpPolicy.choices, default=CatchUpPolicy.NONE, db_default=CatchUpPolicy.NONE
    )
    retry_max_attempts = models.PositiveSmallIntegerField(default=3, db_default=3)
    retry_first_delay_seconds = models.PositiveIntegerField(default=10, db_default=10)
    retry_factor = models.FloatField(default=2.0, db_default=2.0)
    retry_longest_delay_seconds = models.PositiveIntegerField(default=300, db_default=300)
    run_deadline_seconds = models.PositiveIntegerField(default=600, db_default=600)
    attempt_timeout_seconds = models.PositiveIntegerField(
        null=True, blank=True, help_text="Null for the platform's time limit, which is also the highest."
    )
    pause_after_failures = models.PositiveIntegerField(
        null=True, blank=True, help_text="Failed runs in a row that disable it; 0 for never, null for the default."
    )
    consecutive_failures = models.PositiveIntegerField(default=0, db_default=0, editable=False)
    accounted_until = models.DateTimeField(
        db_default=Now(), editable=False, help_text="Every slot up to here has its run, or is nobody's."
    )
    next_slot_at = models.DateTimeField(
        null=True, editable=False, help_text="The first slot that is not accounted for."
    )
    revision = models.PositiveIntegerField(default=1, editable=False)
    generation = models.PositiveIntegerField(default=1, editable=False)
    synced_generation = models.PositiveIntegerField(default=0, editable=False)
    sync_error = models.CharField(max_length=512, blank=True, editable=False)
    exact_until = models.DateTimeField(
        null=True, editable=False, help_text="Until when the mirror's calendars are exact; renewed long before."
    )
    calendar_rules = models.CharField(
        max_length=32, blank=True, editable=False, help_text="What the mirror's calendars were compiled by."
    )
    mirror_digest = models.CharField(
        max_length=64, blank=True, db_default="", editable=False, help_text="Of what the mirror was made to say."
    )
    push_failures = models.PositiveSmallIntegerField(
        default=0, db_default=0, editable=False, help_text="Pushes in a row that failed for a reason that will stay."
    )
    push_after = models.DateTimeField(
        null=True, editable=False, help_text="Not pushed before, because pushing failed for a reason that will stay."
    )
    held_since = models.DateTimeField(
        null=True, editable=False, help_text="When the pause of an operator was first seen in Temporal."
    )
    held_note = models.CharField(max_length=512, blank=True, db_default="", editable=False)
    release_hold = models.BooleanField(
        default=False, db_default=False, editable=False, help_text="The next push lifts the operator's pause."
    )
    changed_at = models.DateTimeField(db_default=Now(), editable=False, help_text="When the generation last moved.")
    last_run_at = models.DateTimeField(null=True, editable=False)
    last_success_at = models.DateTimeField(null=True, editable=False)
    last_run_status = models.CharField(max_length=16, choices=RunStatus.choices, blank=True, editable=False)
    last_error = models.CharField(max_length=1024, blank=True, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ("created_at", "id")
        constraints = [
            models.UniqueConstraint(
                fields=("tenant", "install", "name"),
                condition=Q(name__isnull=False),
                name="a_schedule_name_is_unique_per_install",
            ),
            models.CheckConstraint(
                condition=Q(synced_generation__lte=F("generation")),
                name="a_mirror_is_never_ahead_of_its_row",
            ),
        ]
        indexes = [
            models.Index(
                fields=("tenant", "install", "created_at", "id"),
                name="schedules_of_an_install",
            ),
            models.Index(
                fields=("tenant", "changed_at"),
                condition=~Q(synced_generation=F("generation")),
                name="schedules_not_yet_synced",
            ),
            # Not led by the tenant: the ledger sweep asks what is due on the whole platform.
            models.Index(fields=("next_slot_at",), condition=Q(enabled=True), name="schedules_with_slots_due"),
        ]

    def __str__(self) -> str:
        return self.name or f"{self.endpoint_method} {self.endpoint_path} at {self.cron}"

    @property
    def sync_state(self) -> SyncState:
        """How the mirror stands to this row, as far as the row knows."""
        if self.synced_generation == self.generation:
            return SyncState.SYNCED
        return SyncState.FAILED if self.sync_error else SyncState.PENDING


class MirrorRemoval(models.Model):
    """A deleted schedule whose mirror is still to be removed. Gone once it is."""

    id = models.UUIDField(primary_key=True, editable=False, help_text="The deleted schedule's id.")
    tenant_id = models.UUIDField(editable=False)
    install_id = models.UUIDField(editable=False)
    deleted_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        indexes = [models.Index(fields=("tenant_id", "deleted_at"), name="mirrors_to_be_removed")]

    def __str__(self) -> str:
        return str(self.id)
