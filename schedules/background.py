"""Work on the way to Temporal beside what asked for it: this process's push threads, and passes over many mirrors.

Nothing here knows what the work is. A piece of work says what became of it as a `PushOutcome`, and what is not done is
found again by `schedules.sweep`, so that anything here may be lost with its process.
"""

from __future__ import annotations

import contextvars
import itertools
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from queue import PriorityQueue
from typing import Final, TypeAlias, TypeVar

import structlog
from django.core.signals import request_finished, request_started
from django.db import DatabaseError, InterfaceError, connection

from schedules import temporal_bridge
from schedules.errors import SchedulingError

log = structlog.get_logger(__name__)

T = TypeVar("T")

# After Temporal did not answer, nobody in this process asks again for this long: the answer would be the same.
OUTAGE_MEMORY_SECONDS: Final = 5.0
OUTAGE_JITTER_SECONDS: Final = 1.0
PUSH_THREADS: Final = 2
# How a pass over many mirrors goes on.
PARALLEL_PUSHES: Final = 4
PUSHES_PER_SECOND: Final = 150
MAX_UNANSWERED: Final = 2
# Requests go before mirrors, because somebody waits for them: a push waits until the process has been quiet for a
# moment, though not for long, and the less the more of them there are, so that a process that is never quiet still
# makes some four a second and keeps up with many.
QUIET_SECONDS: Final = 0.02
CALLERS_FIRST_SECONDS: Final = 0.5
CALLERS_FIRST_TOGETHER_SECONDS: Final = 5.0
ANNOUNCEMENT_SECONDS: Final = 10.0
# What is more than this is left to the sweep; the rest of the places are kept for what is not patient.
MAX_PATIENT: Final = 1000
MAX_WAITING: Final = 2000


class PushOutcome(StrEnum):
    """What became of one piece of work on the way to Temporal."""

    SYNCED = "synced"
    REMOVED = "removed"
    STARTED = "started"
    CLOSED = "closed"
    NOTHING = "nothing"
    BUSY = "busy"
    UNAVAILABLE = "unavailable"
    REFUSED = "refused"
    FAILED = "failed"


def do_soon(work: Callable[[], PushOutcome], *, key: Hashable, patient: bool = False) -> None:
    """Do the work in the background. Call it after the commit. Waits for nothing, never raises.

    Nothing is added where work with the same ``key`` still waits to begin: it will see what this one would. What is
    ``patient`` lets all other work go first, and the requests that this process is answering, for a moment.
    """
    # What is asked for keeps the context that it was asked in, for the log.
    _background.do_soon(_Work(key, partial(contextvars.copy_context().run, work), patient))


def finish_background_work(*, timeout_seconds: float) -> None:
    """Wait until the pushes that this process was asked for are done, e.g. before a command exits."""
    wait(_background.pending(), timeout=timeout_seconds)


def isolated(work: Callable[[], PushOutcome]) -> PushOutcome:
    """Do one piece of work; whatever goes wrong with it is its own affair, and stays visibly undone."""
    try:
        return work()
    except (DatabaseError, InterfaceError):
        log.warning("convergence.database_error")
        connection.close()
        return PushOutcome.UNAVAILABLE
    except Exception:
        log.exception("convergence.bug")
        return PushOutcome.FAILED


def services_answer() -> bool:
    """Whether PostgreSQL and Temporal answer, so that what got no answer has a reason of its own."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        return temporal_bridge.has_namespace()
    except (DatabaseError, InterfaceError, SchedulingError):
        return False


def in_parallel(
    items: Iterable[T], work: Callable[[T], PushOutcome], *, deadline: float = float("inf")
) -> Counter[PushOutcome]:
    """Do the work for each, a few at a time, each thread with a connection of its own, at a bounded rate.

    Returns what came of them. Ends early, leaving the rest, after ``deadline`` (of `time.monotonic`) and where
    PostgreSQL or Temporal is away; a single item that gets no answer keeps none of the others from theirs.
    """
    waiting, lock, unanswered = iter(items), threading.Lock(), 0

    def one_thread() -> Counter[PushOutcome]:
        nonlocal unanswered
        outcomes: Counter[PushOutcome] = Counter()
        try:
            while unanswered < MAX_UNANSWERED and time.monotonic() < deadline:
                with lock:
                    item = next(waiting, None)
                if item is None:
                    break
                began = time.monotonic()
                outcome = work(item)
                outcomes[outcome] += 1
                is_away = outcome is PushOutcome.UNAVAILABLE and not services_answer()
                unanswered = unanswered + 1 if is_away else 0
                time.sleep(max(0.0, PARALLEL_PUSHES / PUSHES_PER_SECOND - (time.monotonic() - began)))
        finally:
            connection.close()
        return outcomes

    with ThreadPoolExecutor(PARALLEL_PUSHES, thread_name_prefix="converge") as threads:
        done = [threads.submit(one_thread) for _ in range(PARALLEL_PUSHES)]
    return sum((future.result() for future in done), Counter())


def announce_temporal() -> None:
    """Say in the log when Temporal answers, and until then that it does not. Returns at once; nothing waits for it.

    For a web process at its start: writes succeed all the same, and whoever looks should know why mirrors are pending.
    """

    def announce() -> None:
        while True:
            try:
                temporal_bridge.check_health()
            except SchedulingError as error:
                log.warning("web.waiting_for_temporal", reason=error.message)
                time.sleep(ANNOUNCEMENT_SECONDS)
            else:
                log.info("web.temporal_answers", address=temporal_bridge.address())
                return

    threading.Thread(target=announce, name="announce-temporal", daemon=True).start()


class _Callers:
    """Knows whether this process is answering a request right now."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._in_flight = 0
        self._quiet_since = 0.0
        request_started.connect(self._began, weak=False)
        request_finished.connect(self._ended, weak=False)

    def wait_for_a_pause(self, *, patience_seconds: float) -> None:
        """Return once nothing has been in flight for `QUIET_SECONDS`, or after so long."""
        deadline = time.monotonic() + patience_seconds
        with self._changed:
            while (now := time.monotonic()) < deadline:
                wake = deadline if self._in_flight else min(deadline, self._quiet_since + QUIET_SECONDS)
                if wake <= now:
                    return
                self._changed.wait(wake - now)

    def _began(self, **_: object) -> None:
        with self._changed:
            self._in_flight += 1

    def _ended(self, **_: object) -> None:
        with self._changed:
            self._in_flight = max(0, self._in_flight - 1)
            self._quiet_since = time.monotonic()
            self._changed.notify_all()


@dataclass(frozen=True, slots=True, eq=False)
class _Work:
    """A piece of work, what tells it from others, and whether it gives way to others and to requests."""

    key: Hashable
    do: Callable[[], PushOutcome]
    patient: bool


# What is not patient first, and each kind in the order in which it was asked for.
_Queue: TypeAlias = "PriorityQueue[tuple[bool, int, _Work, Future[PushOutcome]]]"


class _Background:
    """The threads that push for this process, made on first use and anew after a fork.

    While Temporal is away, work is put off and tried again together; what a process takes with it when it ends, and
    what is too much to keep, is found by the sweep.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process_id = 0
        self._queue: _Queue = PriorityQueue()
        self._numbers = itertools.count()
        self._unavailable_until = 0.0
        self._put_off: list[_Work] = []
        # The keys of what has not begun.
        self._waiting: set[Hashable] = set()
        self._futures: set[Future[PushOutcome]] = set()

    def pending(self) -> list[Future[PushOutcome]]:
        """What the threads have not done yet."""
        with self._lock:
            return list(self._futures)

    def do_soon(self, work: _Work) -> None:
        """Do the work in the background. Waits for nothing, never raises."""
        with self._lock:
            if self._process_id != os.getpid():
                self._start_threads()
            if work.key in self._waiting or len(self._waiting) >= (MAX_PATIENT if work.patient else MAX_WAITING):
                return
            self._waiting.add(work.key)
            if time.monotonic() < self._unavailable_until:
                self._put_off_until_it_answers(work)
                return
            self._enqueue(work)

    def _enqueue(self, work: _Work) -> None:
        """Hand it to the threads. Call it with the lock held."""
        future: Future[PushOutcome] = Future()
        self._futures.add(future)
        self._queue.put((work.patient, next(self._numbers), work, future))

    def _start_threads(self) -> None:
        """Begin anew in this process. Call it with the lock held."""
        self._queue, self._futures, self._process_id = PriorityQueue(), set(), os.getpid()
        self._put_off, self._waiting = [], set()
        for number in range(PUSH_THREADS):
            # Daemons, as an executor's threads would keep a process that is to end until all that waits is done.
            threading.Thread(target=self._work_through, args=(self._queue,), name=f"push-{number}", daemon=True).start()

    def _work_through(self, queue: _Queue) -> None:
        while True:
            _, _, work, future = queue.get()
            outcome = PushOutcome.FAILED
            try:
                outcome = self._do(work)
            except Exception:
                log.exception("convergence.bug")
            with self._lock:
                self._futures.discard(future)
            future.set_result(outcome)

    def _do(self, work: _Work) -> PushOutcome:
        if work.patient:
            together = CALLERS_FIRST_TOGETHER_SECONDS / max(1, len(self._waiting))
            _callers.wait_for_a_pause(patience_seconds=min(CALLERS_FIRST_SECONDS, together))
        outcome, has_begun = PushOutcome.UNAVAILABLE, False
        if time.monotonic() >= self._unavailable_until:
            has_begun = True
            with self._lock:
                # From here on it may have looked already, and whoever asks again needs another look.
                self._waiting.discard(work.key)
            try:
                outcome = isolated(work.do)
            finally:
                connection.close()
            if outcome is PushOutcome.UNAVAILABLE:
                self._unavailable_until = time.monotonic() + OUTAGE_MEMORY_SECONDS
        if outcome is PushOutcome.UNAVAILABLE:
            with self._lock:
                if not (has_begun and work.key in self._waiting):  # or somebody has asked again meanwhile
                    self._waiting.add(work.key)
                    self._put_off_until_it_answers(work)
        return outcome

    def _put_off_until_it_answers(self, work: _Work) -> None:
        """Keep it for later; the first that is kept sets the clock. Call it with the lock held."""
        self._put_off.append(work)
        if len(self._put_off) == 1:
            # Not all processes at the same moment. A timer that is a daemon keeps no process from ending.
            delay = max(0.0, self._unavailable_until - time.monotonic()) + random.uniform(0, OUTAGE_JITTER_SECONDS)  # noqa: S311
            timer = threading.Timer(delay, self._try_again)
            timer.daemon = True
            timer.start()

    def _try_again(self) -> None:
        with self._lock:
            works, self._put_off = self._put_off, []
            for work in works:
                self._enqueue(work)


_callers = _Callers()
_background = _Background()
