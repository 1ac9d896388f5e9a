"""Bodies that come in chunks, without a length in front (RFC 9112, section 7.1).

Django reads as many bytes as ``Content-Length`` says, and takes a body without one for an empty one. A client that
streams its requests would be answered as if it had said nothing.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class ReadsChunkedBodies:
    """Wraps a WSGI application; reads a chunked body up to a limit and hands it on with its length.

    The server must end the stream where the body ends, as gunicorn does; a body above the limit is a 413.
    """

    def __init__(self, application: WSGIApplication, *, max_bytes: int) -> None:
        self._application = application
        self._max_bytes = max_bytes

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        if environ.get("HTTP_TRANSFER_ENCODING", "").strip().lower() == "chunked":
            body = _read(environ["wsgi.input"], self._max_bytes + 1)
            if len(body) > self._max_bytes:
                return _too_large(start_response)
            environ["wsgi.input"] = io.BytesIO(body)
            environ["CONTENT_LENGTH"] = str(len(body))
        return self._application(environ, start_response)


def _read(stream: Any, max_bytes: int) -> bytes:
    parts, size = [], 0
    while size < max_bytes and (part := stream.read(min(65_536, max_bytes - size))):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def _too_large(start_response: StartResponse) -> Iterable[bytes]:
    message = "The body is too large"
    # Both shapes of an error at once: nobody has looked yet at which API this is for.
    body = json.dumps({"code": "too_large", "message": message, "error": message, "fields": {}, "data": {}}).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("Connection", "close")]
    start_response("413 Content Too Large", headers)
    return [body]
