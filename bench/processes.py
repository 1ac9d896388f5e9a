"""Processes that a scenario starts, kills and starts again, and what they use of the machine."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import psutil

from scheduler_project import embedded

SAMPLE_SECONDS: Final = 0.5
ENDING_SECONDS: Final = 20.0


class Managed:
    """One command as a process: it can be killed as a crash would, and started again as a supervisor would."""

    def __init__(self, command: list[str], *, log: str = "", **environment: str) -> None:
        self._command = command
        self._environment = environment
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def pid(self) -> int:
        """The id of the process that runs now."""
        assert self._process is not None
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether it ended by itself."""
        return self._process is None or self._process.poll() is not None

    def start(self) -> None:
        """Start the command unless it runs; its output goes to the log file, or where ours goes."""
        if not self.has_ended:
            return
        with contextlib.ExitStack() as stack:
            output = stack.enter_context(open(self._log, "ab")) if self._log else None  # noqa: PTH123 - a descriptor
            self._process = subprocess.Popen(
                self._command,
                env=os.environ | self._environment,
                cwd=embedded.PROJECT_ROOT,
                stdout=output,
                stderr=output,
            )

    def send_kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.send_kill()
        if self._process is not None:
            self._process.wait()

    def stop(self) -> None:
        """SIGTERM, and SIGKILL where that does not help."""
        if self._process is None or self.has_ended:
            return
        self._process.terminate()
        try:
            self._process.wait(ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()


def kill_together(processes: Iterable[Managed]) -> None:
    """SIGKILL to each before any is waited for."""
    killed = list(processes)
    for one in killed:
        one.send_kill()
    for one in killed:
        one.kill()


@contextlib.contextmanager
def running(command: list[str], *, log: str = "", **environment: str) -> Iterator[Managed]:
    """Run a command beside the scenario and end it afterwards."""
    managed = Managed(command, log=log, **environment)
    try:
        yield managed
    finally:
        managed.stop()


@dataclass(slots=True)
class Usage:
    """What one process with its children used: CPU seconds, and the most memory at one time.

    Memory is the proportional set size, in which a page that several processes share counts once.
    """

    cpu_seconds: float = 0.0
    peak_mb: float = 0.0


@dataclass(slots=True)
class Meter:
    """Watches processes, each with its children, from `start` to `stop`."""

    pids: Mapping[str, int]
    _before: dict[str, float] = field(default_factory=dict)
    _peaks: dict[str, float] = field(default_factory=dict)
    _done: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to count."""
        self._before = {name: _cpu_seconds(pid) for name, pid in self.pids.items()}
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self) -> dict[str, Usage]:
        """What each used since."""
        self._done.set()
        assert self._thread is not None
        self._thread.join()
        return {
            name: Usage(_cpu_seconds(pid) - self._before[name], self._peaks[name]) for name, pid in self.pids.items()
        }

    def _sample(self) -> None:
        while True:
            for name, pid in self.pids.items():
                self._peaks[name] = max(self._peaks.get(name, 0.0), _memory_mb(pid))
            if self._done.wait(SAMPLE_SECONDS):
                return


def _family(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _cpu_seconds(pid: int) -> float:
    """Of the process and its children, those that have ended among them."""
    total = 0.0
    for one in _family(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def _memory_mb(pid: int) -> float:
    total = 0.0
    for one in _family(pid):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            total += one.memory_full_info().pss / 1_000_000
    return total
