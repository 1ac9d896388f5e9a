"""Every command of the runbook, run in the state that its section speaks of."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.platform import PATH
from tests.support.waiting import eventually

RUNBOOK = processes.ROOT / "docs" / "runbook.md"
SECTION = re.compile(r"^## (.*?)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
STATE = re.compile(r"<!-- state: (\w+) -->")
BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("curl") is None, reason="some commands are curl's; .ci/run installs it"),
]

SECTIONS = [
    (title, STATE.search(text)[1], BLOCK.findall(text))
    for title, text in SECTION.findall(RUNBOOK.read_text())
    if STATE.search(text)
]


def bring_about(platform, state, schedule, mirror):
    match state:
        case "paused":
            system = "extsched-system:compare:faults"
            eventually(lambda: platform.status()["passes"]["comparison"]["schedule"] == "ok")
            platform.cli("schedule", "toggle", "--pause", "--schedule-id", system, "--reason", "x")
        case "unmigrated":
            platform.manage("migrate", "schedules", "0006")
            platform.web.stop()
            platform.start_web()
            assert platform.get("/readyz").status_code == 503
        case "unsynced":
            platform.unstamp()
        case "refused":
            platform.poison(schedule)
            platform.reconcile()
        case "wiped":
            platform.wipe_temporal()
            assert platform.reconcile()[0] == 1
        case "orphans":
            platform.execute("DELETE FROM schedules_schedule WHERE id <> %s", [schedule])
            assert platform.reconcile()[0] == 1
        case "edited":
            platform.change_by_hand(mirror, "edit")
        case "running":
            platform.cli("schedule", "trigger", "--schedule-id", mirror)
            eventually(lambda: "RunSchedule" in platform.cli("workflow", "list"))


def make_state(platform, state):
    """Bring the platform into the state; returns the schedule that the commands are about."""
    schedules = [platform.create(name=str(number)) for number in range(12)]
    platform.assert_equal()
    mirror = f"extsched:{platform.install_id}:{schedules[0]}"
    if state in {"healthy", "paused", "unsynced"}:
        platform.start_worker()
    bring_about(platform, state, schedules[0], mirror)
    if state in {"wiped", "orphans", "edited", "unsynced"}:
        assert platform.reconcile("--dry-run")[0] == 1, "the section begins with nothing wrong"
    return schedules[0]


def assert_mended(platform, state):
    if state in {"wiped", "orphans", "edited", "unsynced"}:
        platform.assert_equal()
        assert platform.status()["comparison"]["refused"] is None
    if state == "unmigrated":
        assert platform.get("/readyz").json()["checks"]["migrations"] == "ok"
    if state == "paused":
        assert platform.status()["passes"]["comparison"]["schedule"] == "ok"
    if state == "running":
        eventually(lambda: "Terminated" in platform.cli("workflow", "list"))


@pytest.mark.parametrize(("title", "state", "blocks"), SECTIONS, ids=[title for title, _, _ in SECTIONS])
def test_the_commands_of_a_section_work_where_they_are_needed(platform, title, state, blocks):
    schedule = make_state(platform, state)
    assert blocks
    environment = platform.environment | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "WEB": f"http://127.0.0.1:{platform.web_port}",
        "METRICS_TOKEN": "metrics-token",
        "MIRROR": f"extsched:{platform.install_id}:{schedule}",
        "TENANT": platform.tenant_id,
        "SCHEDULE": schedule,
        "QUEUE": "faults",
    }

    for block in blocks:
        ended = subprocess.run(
            ["/bin/sh", "-euc", block],
            env=environment,
            cwd=processes.ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ended.returncode == 0, f"{block}\n{ended.stdout}\n{ended.stderr}"

    assert_mended(platform, state)


def test_every_alarm_is_a_metric_that_is_there(platform):
    shown = platform.get("/metrics", authorization="Bearer metrics-token").text
    for name in set(re.findall(r"schedule_(?:sync_|comparison_|holds)[a-z_]*", RUNBOOK.read_text())):
        assert f"\n{name} " in shown, name
    assert PATH not in shown
