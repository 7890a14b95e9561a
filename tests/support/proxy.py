"""A TCP proxy on loopback between service and broker that can be slow, cut, or half-open."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections import deque
from threading import Event, Thread
from typing import Self

from fraud_service.demo.broker import LOOPBACK, free_loopback_port

CHUNK = 1 << 16
MOST_WAITING = 1 << 22  # bytes in transit in one direction


class Proxy:
    """Forward connections from `port` to `target`, both on loopback. Use it as a context manager.

    It adds `delay` (seconds) in each direction. With `is_deaf` it is half-open: it accepts data and forwards none, as
    with a peer that disappeared without closing the connection.
    """

    def __init__(self, target: int, port: int | None = None) -> None:
        self.target = target
        self.port = port or free_loopback_port()
        self.delay = 0.0
        self.is_deaf = False
        self._is_truncated = Event()
        self._stopping = Event()
        self._threads: list[Thread] = []
        self._open: set[socket.socket] = set()

    def __enter__(self) -> Self:
        self._listener = socket.create_server((LOOPBACK, self.port))
        self._listener.settimeout(0.1)
        Thread(target=self._accept, name="proxy", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._close_all()
        self._listener.close()

    def cut(self) -> None:
        """Reset all connections, and each new one as soon as it opens."""
        self._is_truncated.set()
        self._close_all()

    def mend(self) -> None:
        """Forward again. Closes connections whose data was dropped, so that clients connect again."""
        was_deaf, self.is_deaf, self.delay = self.is_deaf, False, 0.0
        if was_deaf:
            self._close_all()
        self._is_truncated.clear()

    def _close_all(self) -> None:
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                near, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            if self._is_truncated.is_set():
                near.close()
                continue
            try:
                far = socket.create_connection((LOOPBACK, self.target), timeout=5)
            except OSError:
                near.close()
                continue
            Thread(target=self._serve, args=(near, far), name="proxied", daemon=True).start()

    def _serve(self, near: socket.socket, far: socket.socket) -> None:
        self._open |= {near, far}
        try:
            self._pump({near: far, far: near})
        except OSError:
            pass  # one side closed the connection
        finally:
            self._open -= {near, far}
            near.close()
            far.close()

    def _pump(self, other: dict[socket.socket, socket.socket]) -> None:
        waiting: deque[tuple[float, socket.socket, bytes]] = deque()
        with selectors.DefaultSelector() as selector:
            for side in other:
                selector.register(side, selectors.EVENT_READ)
            while not self._stopping.is_set():
                pause = max(waiting[0][0] - time.monotonic(), 0.0) if waiting else 0.1
                for key, _ in selector.select(min(pause, 0.1)):
                    data = key.fileobj.recv(CHUNK)
                    if not data:
                        return
                    if not self.is_deaf:
                        waiting.append((time.monotonic() + self.delay, other[key.fileobj], data))
                while waiting and waiting[0][0] <= time.monotonic():
                    _, side, data = waiting.popleft()
                    side.sendall(data)
