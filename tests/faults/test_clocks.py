"""Machines whose clocks differ: what is due, past or expired is PostgreSQL's to say, whoever asks."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not LIBRARIES, reason="needs libfaketime to shift a process's clock; .ci/run installs it"),
]


@pytest.mark.parametrize("shift", ["+7m", "-7m"])
def test_a_web_process_whose_clock_is_wrong_decides_by_the_databases(platform, shift):
    platform.web.stop()
    platform.start_web(LD_PRELOAD=str(LIBRARIES[0]), FAKETIME=shift, NO_FAKE_STAT="1")
    platform.start_worker()
    now = datetime.now(UTC)
    key = platform.key("--expires", moment(now + timedelta(minutes=2)))

    # The clock is really wrong there: what the process alone says, it says by its own.
    shown = platform.api("POST", "schedules/preview", {"cron": "* * * * *"}, key=key, expect=400)
    assert shown["code"] == "invalid"
    dated = platform.get("/healthz").headers["date"]
    off = datetime.strptime(dated, "%a, %d %b %Y %H:%M:%S %Z").replace(tzinfo=UTC) - now
    assert abs(off.total_seconds()) > 300

    schedule = platform.create()
    ((age, changed),) = platform.execute(
        "SELECT extract(epoch FROM clock_timestamp() - accounted_until)::float,"
        " extract(epoch FROM clock_timestamp() - changed_at)::float FROM schedules_schedule"
    )
    assert 0 <= age < 30
    assert 0 <= changed < 30
    # A key that ends in two minutes is good now, and an ended one is not.
    assert platform.api("GET", "schedules", key=key, expect=200)["results"][0]["id"] == schedule
    platform.execute("UPDATE schedules_apikey SET expires_at = clock_timestamp() - interval '1 second'")
    platform.api("GET", "schedules", key=key, expect=401)
    # The past ends where the database says.
    key = platform.key()
    for minutes, expect in ((3, 400), (-3, 200)):
        end = {"start": moment(now - timedelta(days=3)), "end": moment(now + timedelta(minutes=minutes))}
        platform.api("POST", f"schedules/{schedule}/backfill/preview", end, key=key, expect=expect)
    run = platform.api("POST", f"schedules/{schedule}/run-now", {}, key=key, expect=202)
    assert abs(datetime.fromisoformat(run["slot"]) - datetime.now(UTC)) < timedelta(seconds=30)
    platform.assert_equal()
    assert platform.reconcile()[0] == 0
    platform.web.kill_group()  # with such a clock, gunicorn takes its time to end


def moment(value):
    return value.isoformat().replace("+00:00", "Z")
