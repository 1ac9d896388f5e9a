"""``python -m bench.sink PORT SECONDS``: a runner that answers every call with success, after so many seconds.

One process and one coroutine a call, so that what is measured is the other side. It stamps each call as it arrives;
``GET /arrivals`` answers the stamps so far and forgets them; ``GET /seconds/0.5`` lets each later call take so long.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
import urllib.request
from typing import Any, Final

_ENVELOPE: Final = json.dumps({"status": 200, "headers": {}, "body_b64": None, "error": None}).encode()


def read_arrivals(port: int) -> list[dict[str, Any]]:
    """What has arrived since the last look.

    A call's ``path``, when it came (``at``, seconds since the epoch), the run's ``id`` and the idempotency ``key``.
    """
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/arrivals", timeout=10) as answer:
        arrivals: list[dict[str, Any]] = json.load(answer)
    return arrivals


def set_call_seconds(port: int, seconds: float) -> None:
    """Let calls from now on take so long."""
    urllib.request.urlopen(f"http://127.0.0.1:{port}/seconds/{seconds}", timeout=10).close()


class _Sink:
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._arrivals: list[dict[str, Any]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                at = time.time()
                length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
                body = await reader.readexactly(int(length.group(1)) if length else 0)
                path = head.split(b" ", 2)[1].decode()
                if path == "/arrivals":
                    answer, self._arrivals = json.dumps(self._arrivals).encode(), []
                elif path.startswith("/seconds/"):
                    answer, self._seconds = b"", float(path.removeprefix("/seconds/"))
                else:
                    key = re.search(rb"x-idempotency-key: *(\S+)", head, re.IGNORECASE)
                    self._arrivals.append(
                        {"path": path, "at": at, "id": _run_id(body), "key": key.group(1).decode() if key else ""}
                    )
                    await asyncio.sleep(self._seconds)
                    answer = _ENVELOPE
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n")
                writer.write(b"content-length: %d\r\n\r\n" % len(answer) + answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


def _run_id(body: bytes) -> str:
    content = json.loads(body) if body else {}
    return str(content.get("id") or content.get("context", {}).get("invocation_id", ""))


async def _main(port: int, seconds: float) -> None:
    server = await asyncio.start_server(_Sink(seconds).serve, "127.0.0.1", port, backlog=2048)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), float(sys.argv[2])))
