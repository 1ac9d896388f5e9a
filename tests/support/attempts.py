"""Taking a run and recording its attempt as a worker does, without worker or engine."""

import uuid
from datetime import UTC, datetime

from schedules import attempts, claims
from schedules.runner import Answer, AttemptOutcome
from workflows import names

SUCCESS = Answer(outcome=AttemptOutcome.SUCCEEDED, http_status=200, envelope_status=200, response_bytes=2)


def claim(world, schedule, *, slot=None, trigger="run_now", run_id=None, workflow_id="workflow"):
    """Try to take a run, by default one that is asked for just now."""
    slot = slot or datetime.now(UTC).replace(microsecond=0)
    if run_id is None and trigger == "schedule":
        run_id = names.slot_invocation_id(schedule_id=schedule["id"], slot=slot)
    return claims.claim(
        tenant_id=world.tenant_id,
        schedule_id=uuid.UUID(str(schedule["id"])),
        invocation_id=run_id or uuid.uuid4(),
        trigger=trigger,
        slot=slot,
        workflow_id=workflow_id,
        workflow_run_id="run",
    )


def claim_slot(world, schedule, slot, **members):
    """Try to take the run of a slot."""
    return claim(world, schedule, slot=slot, trigger="schedule", **members)


def record(taken, answer=SUCCESS):
    """Write what came of the attempt that was taken."""
    now = datetime.now(UTC)
    return attempts.record_attempt(claim=taken, answer=answer, started_at=now, finished_at=now)
