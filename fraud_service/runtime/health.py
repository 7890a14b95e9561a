"""Metrics and health checks on one HTTP port, served by a daemon thread: the main thread belongs to the stream.

`/livez` checks that the poll loop ticks, never that the broker answers: a restart would not bring a broker back.
`/readyz` checks that transactions are processed: connected, partitions assigned, state recovered, models loaded.
`/startupz` succeeds from the first time on that the process was ready.

The server is tornado's. It limits how long a connection may last, how many are open, and how often metrics are
rendered.
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
from dataclasses import dataclass
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Final, Self

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

log = structlog.get_logger(__name__)

SILENCE_ALLOWED: Final = 30.0  # seconds without a turn of the poll loop
CONNECTION_DEADLINE: Final = 10.0  # seconds from accept to close: handshake, request and answer
BACKLOG: Final = 128  # connections that wait to be accepted
MAX_CONNECTIONS: Final = 32  # few, because a probe waits while earlier connections are served
MAX_REQUEST_BYTES: Final = 16_384  # of headers, and of a body, which no request needs
RENDER_INTERVAL: Final = 0.25  # seconds between two renderings of the metrics, however many ask
TICK: Final = 0.5  # seconds between two checks of old connections and of the certificate
ACCEPT_PAUSE: Final = 0.05  # seconds, when the process has no file left for a connection
NO_FILES: Final = frozenset({errno.EMFILE, errno.ENFILE})


class Health:
    """State for the probes. The stream replaces its fields, and the HTTP thread reads them."""

    def __init__(self) -> None:
        self._beat = self.began = time.monotonic()
        self._started = False
        self.conditions: dict[str, bool] = {
            "connected": True,
            "assigned": False,
            "recovered": False,
            "models_loaded": False,
        }

    def beat(self, pause: float = 0.0) -> None:
        """Record a tick of the poll loop; `pause` seconds may pass until the next one counts as late."""
        self._beat = time.monotonic() + pause

    def begin(self, longest: float) -> None:
        """Record that the stream is starting, which takes `longest` seconds at most."""
        self.began = time.monotonic()
        self.beat(longest)

    def now(self, **conditions: bool) -> None:
        """Set conditions of readiness."""
        self.conditions = {**self.conditions, **conditions}
        self._started = self._started or self.is_ready

    @property
    def is_live(self) -> bool:
        """Whether the poll loop ticked lately."""
        return time.monotonic() - self._beat < SILENCE_ALLOWED

    @property
    def is_ready(self) -> bool:
        """Whether transactions are being processed."""
        return all(self.conditions.values())

    @property
    def has_started(self) -> bool:
        """Whether the process was ready once."""
        return self._started


class HttpEndpoint:
    """Serve `/metrics`, `/livez`, `/readyz` and `/startupz`.

    Parameters
    ----------
    identity
        Files of certificate and private key, for HTTPS.

    Raises
    ------
    ConfigurationError
        When the address cannot be bound, or the certificate not be used.
    """

    def __init__(
        self, host: str, port: int, metrics: Metrics, health: Health, identity: tuple[Path, Path] | None = None
    ) -> None:
        self._certificate = None if identity is None else _Certificate(*identity)
        self._application = _application(_Exposition(metrics), health)
        try:
            self._socket = socket.create_server((host, port), backlog=BACKLOG)
        except OSError as error:
            raise ConfigurationError(
                f"FRAUD_HTTP_HOST={host} FRAUD_HTTP_PORT={port} cannot be bound: {error.strerror}; name an "
                "IPv4 address of this host and a free port"
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
            no_keep_alive=True,  # so that the deadline of a connection is that of a request
            max_header_size=MAX_REQUEST_BYTES,
            max_body_size=MAX_REQUEST_BYTES,
            ssl_options=self._certificate and self._certificate.context,
        )
        self._loop.set_exception_handler(server.on_loop_error)
        server.add_socket(self._socket)
        PeriodicCallback(lambda: self._tick(server), TICK * 1000).start()
        self._is_serving.set()
        await self._stop.wait()
        server.stop()
        await server.close_all_connections()

    def _tick(self, server: _BoundedServer) -> None:
        server.close_late_connections()
        if self._certificate is not None:
            server.ssl_options = self._certificate.renewed()


@dataclass(frozen=True)
class _Connection:
    stream: IOStream
    address: str
    deadline: float


class _BoundedServer(HTTPServer):
    """An HTTP server that still answers probes when many or slow clients attack it."""

    def initialize(self, *arguments: Any, **options: Any) -> None:
        """Take what `HTTPServer` takes; tornado calls this instead of a constructor."""
        self._open: list[_Connection] = []
        self._max_connections = _max_connections()
        super().initialize(*arguments, **options)

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        """Serve a connection, before its TLS handshake; the newest is always served."""
        self._open = [connection for connection in self._open if not connection.stream.closed()]
        if len(self._open) >= self._max_connections:
            self._close_one()
        self._open.append(_Connection(stream, address[0], time.monotonic() + CONNECTION_DEADLINE))
        super().handle_stream(stream, address)

    def _close_one(self) -> None:
        """Close the oldest connection of the address that has the most; a probe has only one."""
        ((busiest, _),) = Counter(connection.address for connection in self._open).most_common(1)
        oldest = next(connection for connection in self._open if connection.address == busiest)
        oldest.stream.close()
        self._open.remove(oldest)

    def close_late_connections(self) -> None:
        """Close the connections that have lasted too long, whatever they are waiting for."""
        now = time.monotonic()
        for connection in self._open:
            if connection.deadline < now:
                connection.stream.close()

    def on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Make room when there is no file left to accept a connection with; log every other error."""
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in NO_FILES:
            loop.default_exception_handler(context)
        elif len(self._open) > 1:  # not the newest: Linux says so even if no further connection waits
            self._close_one()
        else:
            time.sleep(ACCEPT_PAUSE)  # the connection still waits, and the loop would try again at once


def _max_connections() -> int:
    """Return how many connections may be open: clients get no more than a quarter of the files of the process."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if files == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, files // 4)


class _Certificate:
    """Certificate and private key for TLS; when the files change, new connections get the new ones."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate, self._key = certificate, key
        try:
            self._load()
        except OSError as error:  # what ssl raises is one too
            raise ConfigurationError(
                f"FRAUD_HTTP_TLS_CERT={certificate} FRAUD_HTTP_TLS_KEY={key} cannot be used: {error.strerror}: "
                "name a PEM certificate and the unencrypted private key that belongs to it"
            ) from None

    def _load(self) -> None:
        self._seen = self._stamps()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._certificate, self._key, password=lambda: "")  # never asks a terminal
        self.context = context

    def _stamps(self) -> list[int | None]:
        """Return when each file was written; nothing for one that is not there while it is replaced."""
        return [path.stat().st_mtime_ns if path.is_file() else None for path in (self._certificate, self._key)]

    def renewed(self) -> ssl.SSLContext:
        """Return the context, read anew if a file changed."""
        try:
            if self._stamps() != self._seen:
                self._load()
        except OSError as error:  # half renewed: the one we have is as good as before
            log.warning("certificate_not_renewed", reason=error.strerror)
        return self.context


class _Exposition:
    """The metrics as text, rendered at most once an interval: many scrapes cost no more than one."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._text, self._stale_at = b"", 0.0

    def text(self) -> bytes:
        if time.monotonic() >= self._stale_at:
            self._text = self._metrics.render()
            self._stale_at = time.monotonic() + RENDER_INTERVAL
        return self._text


def _application(exposition: _Exposition, health: Health) -> Application:
    # A port scan must not fill the log: errors in requests and handshakes are not logged.
    logging.getLogger("tornado.general").setLevel(logging.CRITICAL)
    probes = {
        "/livez": lambda: health.is_live,
        "/readyz": lambda: health.is_ready,
        "/startupz": lambda: health.has_started,
    }
    return Application(
        [
            ("/metrics", _MetricsHandler, {"exposition": exposition}),
            *((path, _ProbeHandler, {"health": health, "ask": ask}) for path, ask in probes.items()),
        ],
        default_handler_class=_NotFoundHandler,
        log_function=lambda _: None,  # probes come every few seconds
    )


class _Handler(RequestHandler):
    def set_default_headers(self) -> None:
        """Do not name the server and its version."""
        self.clear_header("Server")

    def compute_etag(self) -> None:
        """Do not hash what changes with every answer."""


class _MetricsHandler(_Handler):
    def initialize(self, exposition: _Exposition) -> None:
        self._exposition = exposition

    def get(self) -> None:
        self.set_header("Content-Type", CONTENT_TYPE)
        self.finish(self._exposition.text())


class _ProbeHandler(_Handler):
    def initialize(self, health: Health, ask: Callable[[], bool]) -> None:
        self._health, self._ask = health, ask

    def get(self) -> None:
        self.set_status(200 if self._ask() else 503)
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(self._health.conditions).encode() + b"\n")


class _NotFoundHandler(_Handler):
    def prepare(self) -> None:
        self.set_status(404)
        self.set_header("Content-Type", "text/plain")
        self.finish(b"metrics, livez, readyz, startupz\n")
