"""The Celery application and its one task: POST, then write down what came back."""

from __future__ import annotations

import os
from typing import Any

import httpx
from celery import Celery
from django.utils import timezone

PATH = "/celery"

app = Celery("celery_side")
app.config_from_object("django.conf:settings", namespace="CELERY")

_client = httpx.Client(
    base_url=os.environ["RUNNER_BASE_URL"],
    limits=httpx.Limits(max_connections=600, max_keepalive_connections=100),
    timeout=15,
)


def call(self: Any, name: str) -> None:
    """Call the runner once; what goes wrong on the way is tried again three times."""
    from bench.celery_side.models import CallRecord

    started_at = timezone.now()
    status, http_status, error = "failed", None, ""
    try:
        answer = _client.post(PATH, json={"id": name}, headers={"x-idempotency-key": self.request.id})
        http_status = answer.status_code
        status = "succeeded" if answer.is_success else "failed"
    except httpx.TransportError as problem:
        error = type(problem).__name__
        if self.request.retries < self.max_retries:
            raise self.retry(exc=problem, countdown=2**self.request.retries) from None
    CallRecord.objects.create(
        task_id=self.request.id,
        name=name,
        status=status,
        http_status=http_status,
        error=error,
        attempt=self.request.retries + 1,
        started_at=started_at,
        finished_at=timezone.now(),
    )


call_task = app.task(call, bind=True, name="celery_side.call", max_retries=3)
