"""What became of a run: one row each, as on our side."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class CallRecord(models.Model):
    """One call that was made and its outcome."""

    objects: ClassVar[models.Manager[CallRecord]] = models.Manager()

    task_id = models.CharField(max_length=64)
    name = models.CharField(max_length=128, db_index=True)
    status = models.CharField(max_length=16)
    http_status = models.IntegerField(null=True)
    error = models.TextField(blank=True, default="")
    attempt = models.IntegerField()
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.name}: {self.status}"
