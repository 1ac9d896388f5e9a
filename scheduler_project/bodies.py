"""Bodies that come in chunks, without a length in front (RFC 9112, section 7.1), and those that nobody reads.

Django reads as many bytes as ``Content-Length`` says, and takes a body without one for an empty one. A client that
streams its requests would be answered as if it had said nothing. And where a server closes a connection on which the
client is still sending, the client may never see the answer (RFC 9112, section 9.6).
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


# Whoever sends more than that after a refusal may find the connection cut.
MAX_DROPPED_BYTES: Final = 32 * 1024 * 1024
_PIECE: Final = 65_536


class ReadsBodies:
    """Wraps a WSGI application; reads a chunked body up to a limit and hands it on with its length.

    The server must end the stream where the body ends, as gunicorn does. A chunked body above the limit is a 413; one
    with a length is the application's to refuse. What is left unread is read and dropped before the answer goes out.
    """

    def __init__(self, application: WSGIApplication, *, max_bytes: int) -> None:
        self._application = application
        self._max_bytes = max_bytes

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        stream = environ["wsgi.input"]
        if environ.get("HTTP_TRANSFER_ENCODING", "").strip().lower() == "chunked":
            body = b"".join(_pieces(stream, self._max_bytes + 1))
            if len(body) > self._max_bytes:
                _drop(stream)
                return _too_large(start_response)
            environ["wsgi.input"] = io.BytesIO(body)
            environ["CONTENT_LENGTH"] = str(len(body))
        answer = self._application(environ, start_response)
        _drop(stream)
        return answer


def _drop(stream: Any) -> None:
    for _ in _pieces(stream, MAX_DROPPED_BYTES):
        pass


def _pieces(stream: Any, max_bytes: int) -> Iterator[bytes]:
    """What comes, up to so many bytes."""
    left = max_bytes
    while left > 0 and (piece := stream.read(min(_PIECE, left))):
        yield piece
        left -= len(piece)


def _too_large(start_response: StartResponse) -> Iterable[bytes]:
    message = "The body is too large"
    # Both shapes of an error at once: nobody has looked yet at which API this is for.
    body = json.dumps({"code": "too_large", "message": message, "error": message, "fields": {}, "data": {}}).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response("413 Content Too Large", headers)
    return [body]
