"""A TCP proxy that can be taken down and brought up again: the way to a server that is away."""

import contextlib
import socket
import threading


class Proxy:
    """Forwards 127.0.0.1:port to a target while it is up: "host:port", or the path of a Unix socket."""

    def __init__(self, target):
        self.target = target
        self.listener = None
        self.sockets = set()
        self.lock = threading.Lock()
        self.port = 0
        self.up()

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def up(self):
        if self.listener is not None:
            return
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(64)
        self.port = listener.getsockname()[1]
        self.listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def down(self):
        listener, self.listener = self.listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        with self.lock:
            open_sockets, self.sockets = self.sockets, set()
        for each in open_sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self, listener):
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            try:
                far = self._dial()
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self.lock:
                self.sockets |= {near, far}
            for source, sink, is_answer in ((near, far, False), (far, near, True)):
                threading.Thread(target=self._pump, args=(source, sink, is_answer), daemon=True).start()

    def _dial(self):
        if self.target.startswith("/"):
            far = socket.socket(socket.AF_UNIX)
            far.settimeout(5)
            far.connect(self.target)
            return far
        host, _, port = self.target.rpartition(":")
        return socket.create_connection((host, int(port)), timeout=5)

    def _pump(self, source, sink, is_answer):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        self._end(source, sink)

    def _end(self, *ends):
        for each in ends:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
