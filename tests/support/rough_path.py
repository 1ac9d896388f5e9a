"""A way to a server that can be slowed down, cut in the middle of an answer, or one on which answers get lost."""

import contextlib
import socket
import struct
import threading

from tests.support.proxy import Proxy


class RoughPath(Proxy):
    """A proxy whose every piece of data is delayed, or which resets each connection after so many pieces.

    Where it keeps answers, requests arrive and nobody hears of it.
    """

    def __init__(self, target):
        self.delay_seconds, self.pieces_until_reset, self.keeps_answers = 0.0, None, False
        self.reset = set()
        super().__init__(target)

    def mend(self):
        """Be an ordinary way again, also to those who are on it."""
        self.delay_seconds, self.pieces_until_reset, self.keeps_answers = 0.0, None, False

    def _pump(self, source, sink, is_answer):
        pieces = 0
        try:
            while data := source.recv(65536):
                pieces += 1
                if self.pieces_until_reset is not None and pieces > self.pieces_until_reset:
                    self._reset(source, sink)
                    return
                threading.Event().wait(self.delay_seconds)
                if not (is_answer and self.keeps_answers):
                    sink.sendall(data)
        except OSError:
            pass
        if source not in self.reset:
            self._end(source, sink)

    def _reset(self, *ends):
        """End a connection as a crashed machine or an impatient firewall does."""
        with self.lock:
            self.reset |= set(ends)
        for each in ends:
            with contextlib.suppress(OSError):
                # Closed with this option, a socket sends RST and not FIN (socket(7), SO_LINGER).
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                # A socket that the other direction still reads from is not closed before that is woken.
                each.shutdown(socket.SHUT_RD)
            each.close()
