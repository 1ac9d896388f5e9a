"""Starts the product's own processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.waiting import PATIENCE_SECONDS

ROOT = Path(__file__).resolve().parents[2]


class Process:
    """A process of the product with its output in a file."""

    def __init__(self, arguments, *, environment, log_file, cwd=ROOT):
        self.log_file = log_file
        with log_file.open("ab") as log:
            self.popen = subprocess.Popen(
                arguments, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=cwd, start_new_session=True
            )

    @property
    def output(self):
        return self.log_file.read_text()

    def says(self, text):
        """Whether it has said the text; an assertion error once it has ended without."""
        said = text in self.output
        assert said or self.popen.poll() is None, f"it ended before it said {text!r}:\n{self.output}"
        return said

    def kill(self):
        """End it with SIGKILL, which nothing can prepare for."""
        self.popen.kill()
        self.popen.wait(10)

    def kill_group(self):
        """End it and what it has started, e.g. a server's workers, with SIGKILL."""
        os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait(10)

    def stop(self, *, seconds=PATIENCE_SECONDS):
        """End it with SIGTERM; returns the exit status."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise


def base_environment(**values):
    """The test run's own environment with these values; None takes one away."""
    merged = {**os.environ, "PYTHONUNBUFFERED": "1", "DJANGO_SETTINGS_MODULE": "scheduler_project.settings", **values}
    return {name: str(value) for name, value in merged.items() if value is not None}


def start_worker(*, environment, log_file):
    return Process([sys.executable, "-m", "worker"], environment=environment, log_file=log_file)


def start_web(*, port, environment, log_file, workers=2, access_log=None):
    """The web process as a deployment runs it; the access log has a line "METHOD address status" for each answer."""
    server = [sys.executable, "-m", "gunicorn", "scheduler_project.wsgi", "--bind", f"127.0.0.1:{port}"]
    server += ["--workers", str(workers), "--threads", "4"]
    if access_log is not None:
        server += ["--access-logfile", str(access_log), "--access-logformat", "%(m)s %(U)s %(s)s"]
    return Process(server, environment=environment, log_file=log_file)
