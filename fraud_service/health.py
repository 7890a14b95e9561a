"""Metrics and health checks on one HTTP port, served by a daemon thread: the main thread belongs to the stream.

`/livez` asks whether the poll loop turns, never whether the broker answers: a restart would not bring a broker back.
`/readyz` asks whether transactions are being processed: connected, partitions assigned, state recovered, models loaded.
`/startupz` turns good once for all when the process was ready the first time.
"""

from __future__ import annotations

import json
import ssl
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any, Final, Self

import structlog

from fraud_service.errors import ConfigurationError
from fraud_service.metrics import CONTENT_TYPE

if TYPE_CHECKING:
    from pathlib import Path

    from fraud_service.metrics import Metrics

log = structlog.get_logger(__name__)

SILENCE_ALLOWED: Final = 30.0  # seconds without a turn of the poll loop


class Health:
    """What the probes ask. Written by the stream, read by the HTTP thread; each field is replaced, never changed."""

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
        """Say that the poll loop turned, or that for so many seconds it need not."""
        self._beat = time.monotonic() + pause

    def begin(self, longest: float) -> None:
        """Say that the stream is being put together, which takes so many seconds at most."""
        self.began = time.monotonic()
        self.beat(longest)

    def now(self, **conditions: bool) -> None:
        """Set conditions of readiness."""
        self.conditions = {**self.conditions, **conditions}
        self._started = self._started or self.is_ready

    @property
    def is_live(self) -> bool:
        """Whether the poll loop turned lately."""
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
        handler = _handler(metrics, health)
        try:
            if identity is None:
                self._server = ThreadingHTTPServer((host, port), handler)
            else:
                self._server = _HttpsServer((host, port), handler, *identity)
        except OSError as error:
            raise ConfigurationError(
                f"FRAUD_HTTP_HOST={host} FRAUD_HTTP_PORT={port} cannot be bound: {error.strerror}; choose a free port"
            ) from None
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = Thread(target=self._server.serve_forever, name="http", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)


class _HttpsServer(ThreadingHTTPServer):
    """The same with TLS; a certificate that was renewed on disk is taken up by the next connection."""

    def __init__(
        self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], certificate: Path, key: Path
    ) -> None:
        self._certificate, self._key = certificate, key
        try:
            self._load()
        except OSError as error:  # what ssl raises is one too
            raise ConfigurationError(
                f"FRAUD_HTTP_CERTIFICATE={certificate} FRAUD_HTTP_KEY={key} cannot be used: {error.strerror}: "
                "name a PEM certificate and the unencrypted private key that belongs to it"
            ) from None
        super().__init__(address, handler)

    def _load(self) -> None:
        renewed_at = self._certificate.stat().st_mtime_ns
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._certificate, self._key, password=lambda: "")  # never asks a terminal
        self._context, self._loaded = context, renewed_at

    def get_request(self) -> tuple[Any, Any]:
        """Accept a connection. Its thread shakes hands: who is silent holds nobody up."""
        connection, address = super().get_request()
        try:
            if self._certificate.stat().st_mtime_ns != self._loaded:
                self._load()
        except OSError as error:  # half renewed: the one we have is as good as before
            log.warning("certificate_not_renewed", reason=error.strerror)
        return self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over a connection that failed: whoever scans ports must not fill the log."""


def _handler(metrics: Metrics, health: Health) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 5  # seconds for a client to say what it wants

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(200, CONTENT_TYPE, metrics.render())
            elif path == "/livez":
                self._probe(good=health.is_live)
            elif path == "/readyz":
                self._probe(good=health.is_ready)
            elif path == "/startupz":
                self._probe(good=health.has_started)
            else:
                self._answer(404, "text/plain", b"metrics, livez, readyz, startupz\n")

        def _probe(self, *, good: bool) -> None:
            self._answer(200 if good else 503, "application/json", json.dumps(health.conditions).encode() + b"\n")

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Probes come every few seconds: they are no news."""

    return Handler
