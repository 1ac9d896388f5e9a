"""``make demo``: brings the system up, stays in the foreground, takes everything down again.

honcho runs the processes: if one ends, all end. PostgreSQL is not among them because the others need it first.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil
from honcho.manager import Manager

from scheduler_project import embedded

DEFAULT_PORT: Final = 8000
DEMO_FILE: Final = embedded.VAR_DIRECTORY / "demo.json"
# Set in every process of a demo, so that a later demo on the same folder knows what a killed one left running.
OWNER_VARIABLE: Final = "SCHEDULER_DEMO_DIRECTORY"
LEFTOVER_PATIENCE_SECONDS: Final = 10


def main() -> int:
    """Run the demo until Ctrl-C; returns the exit status."""
    if os.environ.get(OWNER_VARIABLE) != str(embedded.VAR_DIRECTORY):
        # Started anew with the mark, so that honcho's helpers, which are forks of this process, carry it too.
        os.environ[OWNER_VARIABLE] = str(embedded.VAR_DIRECTORY)
        os.execv(sys.executable, [sys.executable, "-m", "deploy.demo"])  # noqa: S606
    embedded.VAR_DIRECTORY.mkdir(exist_ok=True)
    with _sole_use_of(embedded.VAR_DIRECTORY):
        DEMO_FILE.unlink(missing_ok=True)
        _end_leftovers()
        environment = os.environ | _secrets() | {OWNER_VARIABLE: str(embedded.VAR_DIRECTORY)}
        port = _web_port()
        environment |= {
            "DEMO_PORT": str(port),
            "DJANGO_SETTINGS_MODULE": "scheduler_project.settings",
            "DJANGO_HTTPS": "false",
            "SCHEDULER_MIN_INTERVAL_SECONDS": os.environ.get("SCHEDULER_MIN_INTERVAL_SECONDS", "60"),
            "PYTHONUNBUFFERED": "1",
        }
        with _database(environment) as database_url:
            environment["DATABASE_URL"] = database_url
            print("Preparing the database …", flush=True)
            migrate = [
                sys.executable,
                "manage.py",
                "migrate",
                "--no-input",
                "--verbosity",
                "0",
            ]
            subprocess.run(migrate, cwd=embedded.PROJECT_ROOT, env=environment, check=True)
            return _run_processes(environment, port=port)


def _run_processes(environment: dict[str, str], *, port: int) -> int:
    manager = Manager()
    python = sys.executable

    def add(name: str, command: list[str], *, quiet: bool = False) -> None:
        # "exec" lets the process take the shell's place, so that the signal reaches it and not only the shell.
        manager.add_process(
            name,
            f"exec {shlex.join(command)}",
            quiet=quiet,
            env=environment,
            cwd=str(embedded.PROJECT_ROOT),
        )

    if not environment.get("TEMPORAL_ADDRESS"):
        temporal_port, ui_port = embedded.free_port(), embedded.free_port()
        environment["TEMPORAL_ADDRESS"] = f"127.0.0.1:{temporal_port}"
        environment["TEMPORAL_UI_URL"] = f"http://127.0.0.1:{ui_port}"
        file = embedded.VAR_DIRECTORY / "temporal.db"
        command = embedded.temporal_server_command(
            port=temporal_port,
            ui_port=ui_port,
            database_file=file,
            namespace=environment.get("TEMPORAL_NAMESPACE") or "default",
        )
        add("temporal", command, quiet=True)
    if not environment.get("RUNNER_BASE_URL"):
        runner_port = embedded.free_port()
        environment["RUNNER_BASE_URL"] = f"http://127.0.0.1:{runner_port}"
        command = [python, "-m", "deploy.demo.runner", "--port", str(runner_port)]
        add("runner", [*command, "--host-url", f"http://127.0.0.1:{port}"])
    web = [python, "-m", "gunicorn", "scheduler_project.wsgi", "--bind", f"127.0.0.1:{port}"]
    add("web", [*web, "--threads", "8", "--log-level", "warning"])
    environment.setdefault("WORKER_METRICS_PORT", str(embedded.free_port()))
    add("worker", [python, "-m", "worker"])
    add("demo", [python, "-m", "deploy.demo.guide"])
    try:
        manager.loop()
    finally:
        DEMO_FILE.unlink(missing_ok=True)
    # Ctrl-C is how a demo is meant to end.
    return 0 if manager.returncode == 130 else int(manager.returncode or 0)


@contextlib.contextmanager
def _database(environment: dict[str, str]) -> Iterator[str]:
    if given := environment.get("DATABASE_URL"):
        yield given
        return
    print("Starting PostgreSQL …", flush=True)
    with embedded.running_postgres(embedded.POSTGRES_DIRECTORY, adopt=True) as url:
        yield url


@contextlib.contextmanager
def _sole_use_of(directory: Path) -> Iterator[None]:
    """Keep a second demo off the same data. The kernel lets go of the lock however this process ends.

    A lock of fcntl(2) and not of flock(2): the latter would live on in the children that a killed demo leaves.
    """
    with (directory / "demo.lock").open("w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SystemExit(f"Another demo uses {directory}; stop it, or run this one from another clone") from None
        yield


def _end_leftovers() -> None:
    """End what a killed demo of this folder left running, told by the mark in its environment."""
    leftovers = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(OWNER_VARIABLE) == str(embedded.VAR_DIRECTORY) and process.pid != os.getpid():
                # honcho's helpers do not listen to a polite word, and have nothing to tidy up.
                is_helper = process.cmdline()[-1:] == ["deploy.demo"]
                process.kill() if is_helper else process.terminate()
                leftovers.append(process)
    if leftovers:
        print(
            f"Ending {len(leftovers)} processes that a killed demo left behind …",
            flush=True,
        )
        _, alive = psutil.wait_procs(leftovers, timeout=LEFTOVER_PATIENCE_SECONDS)
        for process in alive:
            with contextlib.suppress(psutil.Error):
                process.kill()


def _web_port() -> int:
    text = os.environ.get("DEMO_PORT", str(DEFAULT_PORT))
    if not text.isdigit() or not 1 <= int(text) <= 65535:
        raise SystemExit(f"Configuration error: DEMO_PORT: {text!r} is not a port")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", int(text)))
        except OSError:
            raise SystemExit(f"Port {text} is in use; choose another one: make demo DEMO_PORT=8010") from None
    return int(text)


def _secrets() -> dict[str, str]:
    """The demo's secrets: made once for each folder, so that a login outlives a restart. Given ones win."""
    file = embedded.VAR_DIRECTORY / "demo-secrets.json"
    sizes = {
        "DJANGO_SECRET_KEY": 48,
        "RUNNER_SERVICE_TOKEN": 32,
        "REGISTRY_SERVICE_TOKEN": 32,
        "DEMO_ADMIN_PASSWORD": 12,
    }
    try:
        stored = dict(json.loads(file.read_text()))
    except (OSError, ValueError):
        stored = {}
    stored = {name: str(stored.get(name) or secrets.token_urlsafe(size)) for name, size in sizes.items()}
    file.touch(mode=0o600)
    file.write_text(json.dumps(stored))
    return {name: os.environ.get(name) or value for name, value in stored.items()}


if __name__ == "__main__":
    sys.exit(main())
