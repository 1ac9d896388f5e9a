"""The web process as a deployment runs it: what only a real server does to requests."""

import http.client
import json
import socket
import time
import uuid

import httpx
import pytest
from django.db import transaction

from scheduler_project import embedded
from schedules.models import ExtensionInstall, Schedule
from tests.support import processes
from tests.support.expressions import DAILY
from tests.support.waiting import eventually
from tests.support.world import RUNNER_TOKEN

pytestmark = pytest.mark.e2e


@pytest.fixture
def start_web(worker_environment, tmp_path):
    started = []

    def start(**environment):
        port = embedded.free_port()
        values = worker_environment | {"TEMPORAL_TASK_QUEUE": f"test-{uuid.uuid4()}"} | environment
        process = processes.start_web(port=port, environment=values, log_file=tmp_path / "web.log", workers=1)
        started.append(process)
        embedded.wait_for_web(port, patience_seconds=embedded.START_PATIENCE_SECONDS)
        return process, port

    yield start
    for process in started:
        process.stop()


def send(port, method, path, body, *, chunked, **headers):
    """A request whose body goes out in one piece with its length, or in chunks without."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    names = {name.replace("_", "-"): value for name, value in headers.items()} | {"content-type": "application/json"}
    text = json.dumps(body).encode()
    pieces = iter([text[:5], text[5:]]) if chunked else text
    connection.request(method, path, pieces, names, encode_chunked=chunked)
    answer = connection.getresponse()
    said = answer.read()
    connection.close()
    return answer.status, json.loads(said) if said else None


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_says_the_same_in_one_piece_and_in_chunks(world, start_web, chunked):
    schedule = world.create(sync=False)
    _, port = start_web()
    extension, key = f"/api/extensions/{world.install_id}", f"Api-Key {world.key()}"

    status, changed = send(
        port,
        "PATCH",
        f"{extension}/schedules/{schedule['id']}",
        {"cron": "9 9 * * *"},
        chunked=chunked,
        authorization=key,
    )
    assert (status, changed["cron"]) == (200, "9 9 * * *")
    status, run = send(
        port,
        "POST",
        f"{extension}/schedules/{schedule['id']}/run-now",
        {"payload": {"b": 2}},
        chunked=chunked,
        authorization=key,
    )
    assert (status, run["payload"]) == (202, {"b": 2})
    host = f"/api/internal/ext-scheduler/install/{world.install_id}"
    status, listed = send(port, "POST", host, {"operation": "list"}, chunked=chunked, x_runner_auth=RUNNER_TOKEN)
    assert (status, len(listed["schedules"])) == (200, 1)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_refused_either_way(world, start_web, chunked):
    _, port = start_web()
    body = {"endpoint": f"POST {world.path}", "cron": DAILY, "payload": {"a": "x" * 8_000_000}}

    status, said = send(
        port,
        "POST",
        f"/api/extensions/{world.install_id}/schedules",
        body,
        chunked=chunked,
        authorization=f"Api-Key {world.key()}",
    )

    assert (status, said["code"]) == (413, "too_large")
    assert not Schedule.objects.filter(tenant_id=world.tenant_id).exists()


def test_a_stranger_who_sends_much_is_told_so_and_may_ask_again(world, start_web):
    _, port = start_web()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    path, much = f"/api/extensions/{world.install_id}/schedules", b"x" * 8_000_000
    sockets = set()

    for _ in range(2):
        connection.request("POST", path, much, {"content-type": "application/json", "authorization": "Api-Key wrong"})
        sockets.add(connection.sock)
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["code"]) == (401, "not_authenticated")

    assert len(sockets) == 1, "it had to connect anew"
    connection.close()


def test_who_announces_a_body_and_sends_none_is_answered_and_keeps_nobody_waiting(start_web):
    _, port = start_web()
    head = b"POST /api/extensions/x/schedules HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n"
    waiting = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(8)]  # and four threads

    for connection in waiting:
        connection.sendall(head)
    assert httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=20).status_code == 200
    for connection in waiting:
        assert connection.recv(20).startswith(b"HTTP/1.1 401")
        connection.close()


def test_it_ends_when_told_to_although_temporal_is_away_and_much_waits_for_it(world, start_web):
    nowhere = f"127.0.0.1:{embedded.free_port()}"
    process, port = start_web(TEMPORAL_ADDRESS=nowhere, SCHEDULER_MAX_PER_INSTALL="1000")
    for _ in range(60):
        status, schedule = send(
            port,
            "POST",
            f"/api/extensions/{world.install_id}/schedules",
            {"endpoint": f"POST {world.path}", "cron": DAILY},
            chunked=False,
            authorization=f"Api-Key {world.key()}",
        )
        assert (status, schedule["sync_state"]) == (201, "pending")

    began = time.monotonic()
    assert process.stop(seconds=15) == 0
    assert time.monotonic() - began < 15


def test_who_waits_too_long_for_another_change_is_told_that_the_database_is_busy(world, start_web, database_url):
    schedule = world.create(sync=False)
    joint = "&" if "?" in database_url else "?"
    process, port = start_web(DATABASE_URL=f"{database_url}{joint}options=-c%20lock_timeout%3D100ms")
    path, key = f"/api/extensions/{world.install_id}/schedules/{schedule['id']}", f"Api-Key {world.key()}"
    change = {"cron": "9 9 * * *"}

    with transaction.atomic():
        list(ExtensionInstall.objects.select_for_update().filter(id=world.install_id))
        status, said = send(port, "PATCH", path, change, chunked=False, authorization=key)

    busy = "The database is busy, try again soon"
    assert (status, said["code"], said["message"]) == (503, "dependency_unavailable", busy)
    eventually(lambda: process.says("55P03"))
    assert send(port, "PATCH", path, change, chunked=False, authorization=key)[0] == 200


def test_the_admin_says_so_while_the_database_is_away(start_web):
    nowhere = f"postgresql://nobody@127.0.0.1:{embedded.free_port()}/nothing"
    _, port = start_web(DATABASE_URL=nowhere, DJANGO_HTTPS="false")
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        login = client.get("/admin/login/")
        assert login.status_code == 200
        form = {"username": "olga", "password": "x", "csrfmiddlewaretoken": client.cookies["csrftoken"]}
        sent = client.post("/admin/login/", data=form)
        client.cookies.set("sessionid", "a" * 32)
        opened = client.get("/admin/schedules/schedule/")

    for answer in (sent, opened):
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
        assert "The database does not answer" in answer.text
        assert "127.0.0.1" not in answer.text
        assert "default-src 'none'" in answer.headers["content-security-policy"]
