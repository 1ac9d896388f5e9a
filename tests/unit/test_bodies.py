"""What is done with the rest of a body: read after the answer, for a while, and at nobody's cost."""

import io
import json
import socket
import time

import pytest

from scheduler_project import bodies

MAX_BYTES = 100


class Answer:
    """An application's answer that tells when it was ended."""

    def __init__(self):
        self.ended = 0

    def __iter__(self):
        return iter([b"no"])

    def close(self):
        self.ended += 1


class Broken:
    """A body whose client has vanished."""

    def read(self, size):
        raise ConnectionResetError


class Endless:
    """A body that goes on."""

    given = 0

    def read(self, size):
        self.given += size
        return b"x" * size


class FromSocket:
    """A body as a server reads it."""

    def __init__(self, connection):
        self.connection = connection

    def read(self, size):
        return self.connection.recv(size)


@pytest.fixture
def said():
    return Answer()


def ask(said, stream, **environ):
    """The answer of an application that reads nothing, as a server takes it."""
    application = bodies.ReadsBodies(lambda environ, start_response: said, max_bytes=MAX_BYTES)
    answer = application({"wsgi.input": stream} | environ, lambda status, headers: None)
    text = b"".join(answer)
    before = stream.tell() if isinstance(stream, io.BytesIO) else None
    answer.close()
    return text, before


def test_what_nobody_read_is_read_once_the_answer_is_out(said):
    stream = io.BytesIO(b"x" * 5000)

    assert ask(said, stream, CONTENT_LENGTH="5000") == (b"no", 0)

    assert stream.read() == b""
    assert said.ended == 1


def test_a_client_that_vanishes_meanwhile_is_no_error_and_the_application_ends(said):
    assert ask(said, Broken(), CONTENT_LENGTH="5000")[0] == b"no"
    assert said.ended == 1


def test_a_body_without_end_is_read_up_to_a_limit(said):
    stream = Endless()

    ask(said, stream, HTTP_TRANSFER_ENCODING="gzip")

    assert stream.given == bodies.MAX_DROPPED_BYTES


def test_a_body_that_does_not_come_is_waited_for_only_so_long(said, monkeypatch):
    monkeypatch.setattr(bodies, "DROPPING_SECONDS", 0.2)
    ours, theirs = socket.socketpair()
    ours.settimeout(77)

    with ours, theirs:
        theirs.sendall(b"x")
        began = time.monotonic()
        ask(said, FromSocket(ours), **{"gunicorn.socket": ours})

        assert 0.15 < time.monotonic() - began < 10
        assert ours.gettimeout() == 77
    assert said.ended == 1


def test_chunks_above_the_limit_are_refused_without_the_application_and_read_to_their_end(said):
    stream = io.BytesIO(b"x" * 5000)

    text, before = ask(said, stream, HTTP_TRANSFER_ENCODING="chunked")

    assert json.loads(text)["code"] == "too_large"
    assert before == MAX_BYTES + 1
    assert stream.read() == b""
    assert said.ended == 0
