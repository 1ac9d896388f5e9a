"""Metrics that a scraper reads and traces that go from the caller through web, Temporal and worker to the runner."""

import json
import secrets
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from scheduler_project import embedded
from tests.support import processes
from tests.support.waiting import eventually

pytestmark = pytest.mark.e2e


class Collector:
    """Takes what OpenTelemetry exporters send, undecoded: names and ids stand in it as they are."""

    def __init__(self):
        self.bodies = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                collector.bodies.append(self.rfile.read(int(self.headers["content-length"])))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def has(self, *texts):
        everything = b"".join(self.bodies)
        return all(text in everything for text in texts)

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


def fetch(url, body=None, **headers):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"} | headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode()


@pytest.fixture
def platform(world, worker_environment, tmp_path):
    """A web process and a worker of this test's own, which export to a collector."""
    collector = Collector()
    web_port, metrics_port = embedded.free_port(), embedded.free_port()
    multiprocess = tmp_path / "prometheus"
    multiprocess.mkdir()
    environment = worker_environment | {
        "TEMPORAL_TASK_QUEUE": f"test-{uuid.uuid4()}",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "METRICS_TOKEN": "scrape-me-if-you-can",
        "WORKER_METRICS_PORT": str(metrics_port),
        "DJANGO_DEBUG": "1",
    }
    web = processes.start_web(
        port=web_port,
        environment=environment | {"PROMETHEUS_MULTIPROC_DIR": str(multiprocess)},
        log_file=tmp_path / "web.log",
    )
    worker = processes.start_worker(environment=environment, log_file=tmp_path / "worker.log")
    try:
        embedded.wait_for_web(web_port, patience_seconds=embedded.START_PATIENCE_SECONDS)
        eventually(lambda: worker.says("worker.ready"))
        yield f"http://127.0.0.1:{web_port}", f"http://127.0.0.1:{metrics_port}", collector
    finally:
        web.stop()
        worker.stop()
        collector.stop()


def test_one_trace_and_the_right_numbers(world, platform, fake_runner):
    web, worker, collector = platform
    schedule = world.create(sync=False)
    trace_id = secrets.token_hex(16)

    answer = fetch(
        f"{web}/api/extensions/{world.install_id}/schedules/{schedule['id']}/run-now",
        {},
        authorization=f"Api-Key {world.key()}",
        traceparent=f"00-{trace_id}-{secrets.token_hex(8)}-01",
    )

    run = world.finished_run(json.loads(answer)["id"])
    assert run["status"] == "succeeded"
    (call,) = fake_runner.calls[world.path]
    assert call.headers["traceparent"].split("-")[1] == trace_id
    eventually(
        lambda: collector.has(
            bytes.fromhex(trace_id), b"StartWorkflow:RunSchedule", b"RunWorkflow:RunSchedule", b"begin_run"
        )
    )

    numbers = fetch(f"{worker}/metrics")
    assert 'schedule_runs_total{status="succeeded",trigger="run_now"} 1.0' in numbers
    assert 'schedule_attempts_total{outcome="succeeded"} 1.0' in numbers
    for name in ("run_duration", "run_lateness", "queue_wait", "attempt_duration"):
        assert f"schedule_{name}_seconds_bucket" in numbers
    for identity in (world.tenant_id, world.install_id, schedule["id"]):
        assert str(identity) not in numbers
    with pytest.raises(urllib.error.HTTPError) as refused:
        fetch(f"{web}/metrics")
    assert refused.value.code == 401
    refused.value.close()
    numbers = fetch(f"{web}/metrics", authorization="Bearer scrape-me-if-you-can")
    assert 'schedule_runs_requested_total{trigger="run_now"} 1.0' in numbers


def test_without_an_endpoint_nothing_of_it_is_imported():
    code = (
        "import django, sys; django.setup(); from schedules import temporal, runner, tracing; "
        "tracing.configure(service='x'); print([name for name in sys.modules if 'opentelemetry.sdk' in name])"
    )
    environment = processes.base_environment(DJANGO_DEBUG="1", DATABASE_URL="postgresql://none@127.0.0.1:1/none")
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
