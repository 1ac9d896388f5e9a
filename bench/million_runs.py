"""What a million runs do to reading and deleting them.

Lists, statistics and the admin's pages are asked for with a thousand rows and with a million, through the
real views in this process. Then the million is purged, and the rate is held against that at which runs are written: by
claim and record, one after the other on one connection, as a worker writes them, and by one bulk statement.
"""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from bench import stage
from bench.report import Figure, percentile
from bench.sizes import SIZES

if TYPE_CHECKING:
    from django.test import Client

RUNS: Final = SIZES.runs
FEW: Final = 1_000
SCHEDULES: Final = 50
REQUESTS: Final = SIZES.requests
PAGE_MS: Final = 300.0
WRITTEN: Final = 500
NAME: Final = f"{RUNS:,} runs"
ABOUT: Final = """
Lists, statistics and the admin's pages are asked for with few rows of runs and with many, one each two seconds up to
now, through the real views in one process. Then the many are purged; the rate is held against that at which one
connection claims and records runs, as a worker does, and against one bulk statement that does nothing but insert rows.
"""

_FILL: Final = """
INSERT INTO schedules_schedulerun (
    id, tenant_id, install_id, schedule_id, trigger, slot, status, reason, version_name, content_hash,
    endpoint_method, endpoint_path, actor, error, workflow_id, workflow_run_id, created_at, started_at, finished_at,
    attempts, attempt_log
)
SELECT gen_random_uuid(), %(tenant)s, %(install)s, (%(schedules)s::uuid[])[1 + n %% %(count)s], 'schedule',
       now() - n * interval '2 seconds',
       CASE WHEN n %% 20 = 0 THEN 'failed' ELSE 'succeeded' END, '', '1', '0', 'POST', '/api/call', '', '', 'w', 'r',
       now() - n * interval '2 seconds', now() - n * interval '2 seconds',
       now() - n * interval '2 seconds' + interval '120 milliseconds', 1,
       '[{"attempt": 1, "outcome": "succeeded"}]'
FROM generate_series(1, %(rows)s) AS n
"""


def run() -> list[Figure]:
    """Measure."""
    with stage.database_alone():
        return _measure()


def _measure() -> list[Figure]:
    from schedules import retention

    seeded = stage.seed_schedules(SCHEDULES)
    tenant_id, install_id, _ = seeded[0]
    pages = _pages(tenant_id, install_id, seeded[0][2])
    _fill(tenant_id, install_id, seeded, rows=FEW)
    retention.count_finished()
    few = {name: _p95(page) for name, page in pages.items()}
    statements = {name: _statements(page) for name, page in pages.items()}
    claims_per_second = _write(seeded)
    started = time.monotonic()
    _fill(tenant_id, install_id, seeded, rows=RUNS)
    bulk_per_second = RUNS / (time.monotonic() - started)
    print(f"{RUNS:,} rows written in bulk at {bulk_per_second:,.0f} a second", file=sys.stderr, flush=True)
    _count_anew()
    many = {name: _p95(page) for name, page in pages.items()}
    statements_then = {name: _statements(page) for name, page in pages.items()}
    purged_per_second = _purge()
    purge = [
        Figure(
            NAME, "purge", purged_per_second, claims_per_second, "runs/s", "at least 10 is wanted", "claim and record"
        ),
        Figure(NAME, "purge", purged_per_second, bulk_per_second, "runs/s", "", "one bulk insert"),
    ]
    return [*_page_figures(few, many), *_statement_figures(statements, statements_then), *purge]


def _count_anew() -> None:
    from django.db import connection

    from schedules import retention

    with connection.cursor() as cursor:
        cursor.execute("UPDATE schedules_runcountprogress SET until = 'epoch'")
        cursor.execute("DELETE FROM schedules_runcount")
        cursor.execute("ANALYZE schedules_schedulerun")
    retention.count_finished()


def _purge() -> float:
    """How many runs a second are deleted, where all that are older than a day may go."""
    from django.db import connection

    from schedules import retention

    with connection.cursor() as cursor:
        cursor.execute("UPDATE schedules_tenant SET keep_succeeded_days = 1, keep_other_days = 1")
    started = time.monotonic()
    purged = retention.purge()
    return purged / (time.monotonic() - started)


def _page_figures(few: Mapping[str, float], many: Mapping[str, float]) -> Iterator[Figure]:
    """Each page's time with many runs beside that with few, and beside the limit of those that people look at."""
    for name in few:
        measured, against, wanted = many[name] * 1000, few[name] * 1000, "at most 2 is wanted"
        yield Figure(NAME, f"p95 of {name}", measured, against, "ms", wanted, beside=f"{FEW:,} runs")
    for name in few:
        if name.endswith("(admin)"):
            measured, wanted = many[name] * 1000, "at most 1 is wanted"
            yield Figure(NAME, f"p95 of {name}, against its limit", measured, PAGE_MS, "ms", wanted)


def _statement_figures(few: Mapping[str, int], many: Mapping[str, int]) -> Iterator[Figure]:
    for name in few:
        yield Figure(NAME, f"statements of {name}", many[name], few[name], "SQL", "1 is constant", f"{FEW:,} runs")


def _fill(tenant_id: uuid.UUID, install_id: uuid.UUID, seeded: list[Any], *, rows: int) -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 0")
        values: dict[str, Any] = {
            "tenant": tenant_id,
            "install": install_id,
            "schedules": [schedule_id for _, _, schedule_id in seeded],
            "count": len(seeded),
            "rows": rows,
        }
        cursor.execute("DELETE FROM schedules_schedulerun")
        cursor.execute(_FILL, values)
        cursor.execute("RESET statement_timeout")


def _write(seeded: list[Any]) -> float:
    """How many runs a second one connection claims and records."""
    from schedules import attempts, claims
    from schedules.runner import Answer, AttemptOutcome

    answer = Answer(outcome=AttemptOutcome.SUCCEEDED, http_status=200, envelope_status=200)
    started = time.monotonic()
    for number in range(WRITTEN):
        tenant_id, _, schedule_id = seeded[number % len(seeded)]
        claim = claims.claim(
            tenant_id=tenant_id,
            schedule_id=schedule_id,
            invocation_id=uuid.uuid4(),
            trigger="run_now",
            slot=datetime.now(UTC) - timedelta(days=40),
            workflow_id="w",
            workflow_run_id="r",
        )
        now = datetime.now(UTC)
        attempts.record_attempt(claim=claim, answer=answer, started_at=now, finished_at=now)
    return WRITTEN / (time.monotonic() - started)


def _pages(tenant_id: uuid.UUID, install_id: uuid.UUID, schedule_id: uuid.UUID) -> dict[str, Callable[[], None]]:
    """What is asked for, by name."""
    from django.contrib.auth import get_user_model
    from django.test import Client

    from schedules import api_keys, audit
    from schedules.models import Role, ScheduleRun, TenantMembership

    actor = audit.Actor(audit.Source.COMMAND, "bench")
    _, key = api_keys.create_key(tenant_id=tenant_id, name="bench", role=Role.VIEWER, actor=actor)
    user = get_user_model().objects.create_user("bench", is_staff=True)
    TenantMembership.objects.create(tenant_id=tenant_id, user=user, role=Role.ADMINISTRATOR)
    client, browser = Client(headers={"authorization": f"Api-Key {key}"}), Client()
    browser.force_login(user)
    api = f"/api/extensions/{install_id}/schedules"
    admin = "/admin/schedules"
    newest = ScheduleRun.objects.filter(tenant_id=tenant_id, schedule_id=schedule_id).order_by("-slot").only("id")
    return {
        "a schedule's runs (API)": partial(_ask, client, f"{api}/{schedule_id}/runs"),
        "an install's statistics (API)": partial(_ask, client, f"{api}/stats"),
        "a schedule's statistics (API)": partial(_ask, client, f"{api}/stats?schedule_id={schedule_id}"),
        "the home page (admin)": partial(_ask, browser, "/admin/"),
        "all runs (admin)": partial(_ask, browser, f"{admin}/schedulerun/"),
        "failed runs (admin)": partial(_ask, browser, f"{admin}/schedulerun/?status__exact=failed"),
        "a run (admin)": lambda: _ask(browser, f"{admin}/schedulerun/{newest[0].id}/change/"),
        "all schedules (admin)": partial(_ask, browser, f"{admin}/schedule/"),
        "a schedule (admin)": partial(_ask, browser, f"{admin}/schedule/{schedule_id}/"),
        "a schedule's form (admin)": partial(_ask, browser, f"{admin}/schedule/{schedule_id}/change/"),
        "an install (admin)": partial(_ask, browser, f"{admin}/extensioninstall/{install_id}/change/"),
    }


def _ask(client: Client, address: str) -> None:
    """Raises RuntimeError where the answer is a refusal."""
    answer = client.get(address)
    if answer.status_code != 200:
        raise RuntimeError(f"{address} answered {answer.status_code}")


def _p95(page: Callable[[], None]) -> float:
    times = []
    for _ in range(REQUESTS):
        started = time.perf_counter()
        page()
        times.append(time.perf_counter() - started)
    return percentile(sorted(times), 95)


def _statements(page: Callable[[], None]) -> int:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as captured:
        page()
    return len(captured)
