"""This process's line to Temporal: the profile, the client on its event loop thread, and what errors mean.

Callers are synchronous. Outages become `DependencyUnavailable`, refusals `MirrorRefused`.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import TimeoutError as FutureTimeoutError
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.envconfig import ClientConfig
from temporalio.service import RPCError, RPCStatusCode

from schedules import tracing
from schedules.errors import DependencyUnavailable, DeploymentRefused, MirrorRefused
from workflows import names

T = TypeVar("T")

DEFAULT_ADDRESS: Final = "127.0.0.1:7233"
# What one call may take.
RPC_TIMEOUT: Final = timedelta(seconds=2)
# What a whole operation of several such calls may take, retries included.
CALL_TIMEOUT: Final = timedelta(seconds=5)

# The statuses that say "not now" rather than "not so" (https://grpc.io/docs/guides/status-codes/).
_TRANSIENT: Final = frozenset(
    {
        RPCStatusCode.UNAVAILABLE,
        RPCStatusCode.DEADLINE_EXCEEDED,
        RPCStatusCode.RESOURCE_EXHAUSTED,
        RPCStatusCode.CANCELLED,
        RPCStatusCode.ABORTED,
        RPCStatusCode.UNKNOWN,
        RPCStatusCode.INTERNAL,
    }
)
# Those that say that it is not this call but the caller.
_ABOUT_US: Final = frozenset({RPCStatusCode.UNAUTHENTICATED, RPCStatusCode.PERMISSION_DENIED})


def read_profile() -> dict[str, Any]:
    """The connection settings from the SDK's own environment configuration.

    Raises ValueError with one line where the profile cannot be read.
    """
    file = os.environ.get("TEMPORAL_CONFIG_FILE")
    if file and not Path(file).is_file():
        raise ValueError("TEMPORAL_CONFIG_FILE names no file")
    if (tls := os.environ.get("TEMPORAL_TLS", "")).lower() not in {"", "true", "false", "1", "0"}:
        raise ValueError(f"TEMPORAL_TLS must be true or false, not {tls[:20]!r}")
    try:
        profile: dict[str, Any] = dict(ClientConfig.load_client_connect_config())
    except Exception as error:  # noqa: BLE001 - the SDK raises whatever its parser raised
        # The values may hold an API key, so only the kind is repeated.
        raise ValueError(
            f"TEMPORAL_PROFILE, TEMPORAL_CONFIG_FILE or a TEMPORAL_* variable cannot be read ({type(error).__name__})"
        ) from None
    profile.setdefault("target_host", DEFAULT_ADDRESS)
    if not _is_address(str(profile["target_host"])):
        raise ValueError("TEMPORAL_ADDRESS (or the profile's address) must be host:port")
    profile.setdefault("namespace", "default")
    return profile


def _is_address(text: str) -> bool:
    found = re.fullmatch(r"(?:https?://)?(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5})/?", text)
    return found is not None and 0 < int(found[1]) <= 65_535


def address() -> str:
    """Where Temporal is expected, for messages."""
    return str(read_profile()["target_host"])


def was_used() -> bool:
    """Whether this process has talked to Temporal; such a one may abort while the interpreter tears down."""
    return bridge.is_running


def check_health() -> None:
    """Return where Temporal answers. Raises DependencyUnavailable."""
    run(lambda client: client.service_client.check_health(timeout=RPC_TIMEOUT))


def has_namespace() -> bool:
    """Whether Temporal knows the namespace that we are to use. Raises DependencyUnavailable."""

    async def describe(client: Client) -> bool:
        try:
            await client.workflow_service.describe_namespace(
                DescribeNamespaceRequest(namespace=client.namespace), timeout=RPC_TIMEOUT
            )
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:
                return False
            # A managed service may not let us look.
            if error.status not in {RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNIMPLEMENTED}:
                raise
        return True

    return run(describe)


class Bridge:
    """The event loop thread of this process and its client.

    Both are made on first use and anew after a fork, which neither survives.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process_id = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: Client | None = None
        self.search_attributes_known = False

    @property
    def is_running(self) -> bool:
        """Whether this process has used it."""
        return self._loop is not None and self._process_id == os.getpid()

    def run(self, call: Callable[[Client], Awaitable[T]], *, timeout: timedelta) -> T:
        """Run a call with the client on the loop's thread and wait for it."""

        async def connected_call() -> T:
            return await call(await self._connect())

        coroutine: Coroutine[Any, Any, T] = connected_call()
        future = asyncio.run_coroutine_threadsafe(coroutine, self._running_loop())
        try:
            return future.result(timeout.total_seconds())
        except FutureTimeoutError:
            future.cancel()
            raise

    def forget_search_attributes(self) -> None:
        """Have them looked up and registered again by the next call that needs them."""
        self.search_attributes_known = False

    async def _connect(self) -> Client:
        if self._client is None:
            profile = read_profile()
            self._client = await Client.connect(**profile, lazy=True, interceptors=tracing.client_interceptors())
        return self._client

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._process_id != os.getpid():
                self._loop, self._client, self._process_id = (
                    asyncio.new_event_loop(),
                    None,
                    os.getpid(),
                )
                self.search_attributes_known = False
                threading.Thread(target=self._loop.run_forever, name="temporal-gateway", daemon=True).start()
            return self._loop


bridge = Bridge()


def run(call: Callable[[Client], Awaitable[T]], *, timeout: timedelta = CALL_TIMEOUT) -> T:
    """Run a call on the loop thread and translate what it raises."""
    try:
        return bridge.run(call, timeout=timeout)
    except RPCError as error:
        if error.status in _TRANSIENT:
            raise DependencyUnavailable(f"Temporal does not answer ({error.status.name})") from error
        if error.status in _ABOUT_US or _is_about_namespace(error):
            # No row is at fault, and none may pay for it.
            raise DeploymentRefused(f"Temporal refuses this deployment: {error.message}"[:500]) from error
        # The namespace may be a new one that does not know our attributes yet: the next call registers them.
        bridge.forget_search_attributes()
        raise MirrorRefused(f"Temporal refused: {error.message}"[:500]) from error
    except RecursionError:
        raise  # a bug of ours, which is a RuntimeError as well
    except (FutureTimeoutError, RuntimeError) as error:
        # An unreachable server is a plain RuntimeError of the SDK.
        raise DependencyUnavailable(f"Temporal at {address()} does not answer") from error


def is_missing(error: RPCError) -> bool:
    """Whether an error says that the thing asked for is not there. A namespace that is not there says nothing of it."""
    return error.status == RPCStatusCode.NOT_FOUND and not _is_about_namespace(error)


def _is_about_namespace(error: RPCError) -> bool:
    return error.status == RPCStatusCode.NOT_FOUND and "namespace" in error.message.lower()


async def ensure_search_attributes(client: Client) -> None:
    """Register our search attributes in the namespace, once for each process."""
    if bridge.search_attributes_known:
        return
    try:
        known = await client.operator_service.list_search_attributes(
            ListSearchAttributesRequest(namespace=client.namespace), timeout=RPC_TIMEOUT
        )
    except RPCError as error:
        if error.status not in {RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNIMPLEMENTED}:
            raise
        # A managed service does not let us look, so they have to be registered beforehand.
        bridge.search_attributes_known = True
        return
    missing = {
        key.name: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
        for key in names.SEARCH_ATTRIBUTES
        if key.name not in known.custom_attributes
    }
    if missing:
        try:
            await client.operator_service.add_search_attributes(
                AddSearchAttributesRequest(namespace=client.namespace, search_attributes=missing),
                timeout=RPC_TIMEOUT,
            )
        except RPCError as error:
            if error.status != RPCStatusCode.ALREADY_EXISTS:  # another process was quicker
                raise
    bridge.search_attributes_known = True
