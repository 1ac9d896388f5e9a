"""Bodies that come in chunks, without a length in front (RFC 9112, section 7.1), and those that nobody reads.

Django reads as many bytes as ``Content-Length`` says, and takes a body without one for an empty one. A client that
streams its requests would be answered as if it had said nothing. And where a server closes a connection on which the
client is still sending, the client may never see the answer (RFC 9112, section 9.6).
"""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


# What is read of a body after it was answered. Whoever sends more, or takes longer, may find the connection cut.
MAX_DROPPED_BYTES: Final = 32 * 1024 * 1024
DROPPING_SECONDS: Final = 5.0
# A server returns with a piece once all of it has come. Small ones let the clock be looked at between them.
_PIECE: Final = 65_536
_DROPPED_PIECE: Final = 1024


class ReadsBodies:
    """Wraps a WSGI application; reads a chunked body up to a limit and hands it on with its length.

    The server must end the stream where the body ends, as gunicorn does. A chunked body above the limit is a 413; one
    with a length is the application's to refuse. What is left unread is read and dropped once the answer is out.
    """

    def __init__(self, application: WSGIApplication, *, max_bytes: int) -> None:
        self._application = application
        self._max_bytes = max_bytes

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        unread = _Unread(environ)
        if environ.get("HTTP_TRANSFER_ENCODING", "").strip().lower() == "chunked":
            body = b"".join(_pieces(environ["wsgi.input"], _PIECE, max_bytes=self._max_bytes + 1))
            if len(body) > self._max_bytes:
                return _Answer(_too_large(start_response), unread)
            environ["wsgi.input"] = io.BytesIO(body)
            environ["CONTENT_LENGTH"] = str(len(body))
        return _Answer(self._application(environ, start_response), unread)


class _Answer:
    """What the application said; the server asks for its end once all of it is out (PEP 3333)."""

    def __init__(self, said: Iterable[bytes], unread: _Unread) -> None:
        self._said = said
        self._unread = unread

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._said)

    def close(self) -> None:
        """Let the application end, then drop what it left."""
        try:
            if close := getattr(self._said, "close", None):
                close()
        finally:
            self._unread.drop()


class _Unread:
    """The rest of a request's body."""

    def __init__(self, environ: WSGIEnvironment) -> None:
        self._stream: Any = environ["wsgi.input"]
        # Only gunicorn says on which socket it is; another server has to mind its own slow clients.
        self._socket: Any = environ.get("gunicorn.socket")

    def drop(self) -> None:
        """Read it, unless that takes too long or the client is gone: the answer is out, so neither is an error."""
        before = None if self._socket is None else self._socket.gettimeout()
        deadline = time.monotonic() + DROPPING_SECONDS
        # A server has its own exceptions for a body that breaks off or is malformed, and it closes the connection.
        with contextlib.suppress(Exception):
            pieces = _pieces(self._stream, _DROPPED_PIECE, max_bytes=MAX_DROPPED_BYTES)
            while (left := deadline - time.monotonic()) > 0:
                if self._socket is not None:
                    self._socket.settimeout(left)
                if not next(pieces, b""):
                    break
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.settimeout(before)


def _pieces(stream: Any, size: int, *, max_bytes: int) -> Iterator[bytes]:
    """What comes, in pieces of a size and up to so many bytes."""
    left = max_bytes
    while left > 0 and (piece := stream.read(min(size, left))):
        yield piece
        left -= len(piece)


def _too_large(start_response: StartResponse) -> Iterable[bytes]:
    message = "The body is too large"
    # Both shapes of an error at once: nobody has looked yet at which API this is for.
    body = json.dumps({"code": "too_large", "message": message, "error": message, "fields": {}, "data": {}}).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response("413 Content Too Large", headers)
    return [body]
