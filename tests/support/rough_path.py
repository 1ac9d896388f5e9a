"""A way to a server that can be slowed down, or cut in the middle of an answer."""

import socket
import struct
import threading

from tests.support.proxy import Proxy


class RoughPath(Proxy):
    """A proxy whose every piece of data is delayed, or which resets each connection after so many pieces."""

    def __init__(self, target):
        self.delay_seconds, self.pieces_until_reset = 0.0, None
        super().__init__(target)

    def _pump(self, source, sink):
        pieces = 0
        try:
            while data := source.recv(65536):
                pieces += 1
                if self.pieces_until_reset is not None and pieces > self.pieces_until_reset:
                    for each in (source, sink):
                        # Closed with this option, a socket sends RST and not FIN (socket(7), SO_LINGER).
                        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        each.close()
                    return
                threading.Event().wait(self.delay_seconds)
                sink.sendall(data)
        except OSError:
            pass
        for each in (source, sink):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
