"""Metrics and health checks on one HTTP port. A daemon thread serves them, because the main thread runs the stream.

`/livez` checks that the poll loop ticks. It ignores the broker, because a restart would not repair a broker.
`/readyz` checks that transactions are processed: connected, partitions assigned, state recovered, models loaded.
`/startupz` succeeds once the process has been ready for the first time.

Tornado serves the port. This module limits the age and the number of connections, and how often metrics are rendered.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import resource
import socket
import ssl
import time
from collections import Counter
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import structlog
from tornado.httpserver import HTTPServer
from tornado.ioloop import PeriodicCallback
from tornado.web import Application, RequestHandler

from fraud_service.domain.errors import ConfigurationError
from fraud_service.runtime.metrics.stream import CONTENT_TYPE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tornado.iostream import IOStream

    from fraud_service.runtime.metrics.stream import Metrics

    _Answer = tuple[int, str, bytes]  # status, content type and body

log = structlog.get_logger(__name__)

MAX_SILENCE_S: Final = 30.0  # between two ticks of the poll loop
CONNECTION_TIMEOUT_S: Final = 10.0  # from accept to close: handshake, request and answer
BACKLOG: Final = 128  # connections that wait to be accepted
MAX_CONNECTIONS: Final = 32  # few, because a probe waits for earlier connections
MAX_REQUEST_BYTES: Final = 16_384  # of headers, and of a body, which no request needs
RENDER_INTERVAL_S: Final = 0.25  # between two renderings of the metrics, whatever the number of clients
CHECK_INTERVAL_S: Final = 0.5  # between two checks of old connections and of the certificate
ACCEPT_PAUSE_S: Final = 0.05  # when the process has no file descriptor left for a connection
NO_FILES: Final = frozenset({errno.EMFILE, errno.ENFILE})


class Health:
    """State for the probes. The stream replaces its fields, and the HTTP thread reads them."""

    def __init__(self) -> None:
        self._heartbeat_at = self.started_at = time.monotonic()
        self.has_started = False
        self.conditions = {"connected": True, "assigned": False, "recovered": False, "models_loaded": False}

    def heartbeat(self, grace_s: float = 0.0) -> None:
        """Record that the poll loop is alive; `grace_s` adds to the time until the next heartbeat is late."""
        self._heartbeat_at = time.monotonic() + grace_s

    def record_start(self, max_start_s: float) -> None:
        """Record that the stream is starting, which takes at most `max_start_s`."""
        self.started_at = time.monotonic()
        self.heartbeat(max_start_s)

    def update(self, **conditions: bool) -> None:
        """Set readiness conditions."""
        self.conditions = {**self.conditions, **conditions}
        self.has_started = self.has_started or self.is_ready

    @property
    def is_live(self) -> bool:
        """Whether the poll loop sent a heartbeat recently."""
        return time.monotonic() - self._heartbeat_at < MAX_SILENCE_S

    @property
    def is_ready(self) -> bool:
        """Whether transactions are being processed."""
        return all(self.conditions.values())


def _listener(host: str, port: int) -> socket.socket:
    """Bind an address. `::` also takes IPv4 connections."""
    if ":" not in host:
        return socket.create_server((host, port), backlog=BACKLOG)
    is_dual = host == "::" and socket.has_dualstack_ipv6()
    return socket.create_server((host, port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=is_dual)


class HttpEndpoint:
    """Serve `/metrics`, `/livez`, `/readyz` and `/startupz`, with HTTPS when `identity` names certificate and key."""

    def __init__(
        self, host: str, port: int, metrics: Metrics, health: Health, identity: tuple[Path, Path] | None = None
    ) -> None:
        self._certificate = None if identity is None else _Certificate(*identity)
        self._application = _application(metrics, health)
        try:
            self._socket = _listener(host, port)
        except OSError as error:
            raise ConfigurationError(
                f"FRAUD_HTTP_HOST={host} FRAUD_HTTP_PORT={port} cannot be bound: {error.strerror}; name an "
                "address of this host and a free port"
            ) from None
        self._socket.settimeout(0)
        self.port: int = self._socket.getsockname()[1]
        self._is_serving = Event()
        self._thread = Thread(target=lambda: asyncio.run(self._serve()), name="http", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._is_serving.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(timeout=5)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = _BoundedServer(
            self._application,
            no_keep_alive=True,  # so that the timeout of a connection also limits each request
            max_header_size=MAX_REQUEST_BYTES,
            max_body_size=MAX_REQUEST_BYTES,
            ssl_options=self._certificate and self._certificate.context,
        )
        self._loop.set_exception_handler(server.on_loop_error)
        server.add_socket(self._socket)
        PeriodicCallback(lambda: self._tick(server), CHECK_INTERVAL_S * 1000).start()
        self._is_serving.set()
        await self._stop.wait()
        server.stop()
        await server.close_all_connections()

    def _tick(self, server: _BoundedServer) -> None:
        server.close_late_connections()
        if self._certificate is not None:
            server.ssl_options = self._certificate.renewed()


class _Connection(NamedTuple):
    stream: IOStream
    address: str
    deadline: float


class _BoundedServer(HTTPServer):
    """An HTTP server that still answers probes when many or slow clients attack it."""

    def initialize(self, *arguments: Any, **options: Any) -> None:
        """Take the arguments of `HTTPServer`; tornado calls this instead of a constructor."""
        self._open: list[_Connection] = []
        self._max_connections = _max_connections()
        super().initialize(*arguments, **options)

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        """Accept a connection, before its TLS handshake. At the limit, close an older one for it."""
        self._open = [connection for connection in self._open if not connection.stream.closed()]
        if len(self._open) >= self._max_connections:
            self._close_one()
        self._open.append(_Connection(stream, address[0], time.monotonic() + CONNECTION_TIMEOUT_S))
        super().handle_stream(stream, address)

    def _close_one(self) -> None:
        """Close the oldest connection of the address that has the most; a probe has only one."""
        ((busiest, _),) = Counter(connection.address for connection in self._open).most_common(1)
        oldest = next(connection for connection in self._open if connection.address == busiest)
        oldest.stream.close()
        self._open.remove(oldest)

    def close_late_connections(self) -> None:
        """Close the connections whose deadline is over."""
        now = time.monotonic()
        for connection in self._open:
            if connection.deadline < now:
                connection.stream.close()

    def on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Close a connection when the process is out of file descriptors; log every other error."""
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in NO_FILES:
            loop.default_exception_handler(context)
        elif len(self._open) > 1:  # keep the newest: Linux reports this error even when no connection waits
            self._close_one()
        else:
            time.sleep(ACCEPT_PAUSE_S)  # the connection still waits, and the loop would retry at once


def _max_connections() -> int:
    """Return the maximum of open connections: at most a quarter of the file descriptors of the process."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if files == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, files // 4)


class _Certificate:
    """Certificate and private key for TLS; when the files change, new connections get the new ones."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate, self._key = certificate, key
        try:
            self._load()
        except OSError as error:  # errors of ssl are OSErrors too
            raise ConfigurationError(
                f"FRAUD_HTTP_TLS_CERT={certificate} FRAUD_HTTP_TLS_KEY={key} cannot be used: {error.strerror}: "
                "name a PEM certificate and the unencrypted private key that belongs to it"
            ) from None

    def _load(self) -> None:
        self._seen = self._stamps()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._certificate, self._key, password=lambda: "")  # never ask on a terminal
        self.context = context

    def _stamps(self) -> list[int | None]:
        """Return the modification time of each file; None while a file is missing during its replacement."""
        return [path.stat().st_mtime_ns if path.is_file() else None for path in (self._certificate, self._key)]

    def renewed(self) -> ssl.SSLContext:
        """Return the context; read the files again when one has changed."""
        try:
            if self._stamps() != self._seen:
                self._load()
        except OSError as error:  # only one file has been replaced: keep the current certificate
            log.warning("certificate_not_renewed", reason=error.strerror)
        return self.context


class _Exposition:
    """The metrics as text, rendered at most once per interval, so that many scrapes cost as much as one."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._text, self._stale_at = b"", 0.0

    def __call__(self) -> _Answer:
        if time.monotonic() >= self._stale_at:
            self._text = self._metrics.render()
            self._stale_at = time.monotonic() + RENDER_INTERVAL_S
        return 200, CONTENT_TYPE, self._text


def _application(metrics: Metrics, health: Health) -> Application:
    # Do not log errors in requests and handshakes: a port scan would fill the log.
    logging.getLogger("tornado.general").setLevel(logging.CRITICAL)

    def probe(is_fine: Callable[[], bool]) -> Callable[[], _Answer]:
        def answer() -> _Answer:
            return 200 if is_fine() else 503, "application/json", json.dumps(health.conditions).encode() + b"\n"

        return answer

    routes = {
        "/metrics": _Exposition(metrics),
        "/livez": probe(lambda: health.is_live),
        "/readyz": probe(lambda: health.is_ready),
        "/startupz": probe(lambda: health.has_started),
    }
    return Application(
        [(path, _Handler, {"answer": answer}) for path, answer in routes.items()],
        default_handler_class=_Handler,
        default_handler_args={"answer": lambda: (404, "text/plain", b"metrics, livez, readyz, startupz\n")},
        log_function=lambda _: None,  # probes come every few seconds
    )


class _Handler(RequestHandler):
    def initialize(self, answer: Callable[[], _Answer]) -> None:
        self._answer = answer

    def set_default_headers(self) -> None:
        """Hide the name and version of the server."""
        self.clear_header("Server")

    def compute_etag(self) -> None:
        """Do not hash the answer: it changes each time."""

    def get(self) -> None:
        status, content_type, body = self._answer()
        self.set_status(status)
        self.set_header("Content-Type", content_type)
        self.finish(body)
