"""HTTP endpoint under clients that are slow, many, or hostile: a probe still gets its answer."""

from __future__ import annotations

import select
import socket
import ssl
import subprocess
import sys
import time
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection, HTTPSConnection

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs
from support.certificates import Authority

from fraud_service.domain.errors import ConfigurationError
from fraud_service.runtime import health as module
from fraud_service.runtime.health import (
    CHECK_INTERVAL_S,
    MAX_CONNECTIONS,
    MAX_REQUEST_BYTES,
    RENDER_INTERVAL_S,
    Health,
    HttpEndpoint,
)
from fraud_service.runtime.metrics.stream import Metrics

pytestmark = pytest.mark.attack

LOOPBACK = "127.0.0.1"
OTHER_CLIENT = "127.0.0.2"
SHORT_DEADLINE = 0.6
REQUEST = b"GET /livez HTTP/1.1\r\nHost: pod\r\n\r\n"


@pytest.fixture
def short_deadline(monkeypatch):
    monkeypatch.setattr(module, "CONNECTION_TIMEOUT_S", SHORT_DEADLINE)
    monkeypatch.setattr(module, "CHECK_INTERVAL_S", 0.1)


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def health():
    return Health()


@pytest.fixture
def port(metrics, health):
    with HttpEndpoint(LOOPBACK, 0, metrics, health) as running:
        yield running.port


@pytest.fixture(scope="module")
def shared_port():
    with HttpEndpoint(LOOPBACK, 0, Metrics(), Health()) as running:
        yield running.port


@pytest.fixture
def identity(tmp_path):
    made = Authority(tmp_path).sign("pod", LOOPBACK)
    return made.certificate, made.key


def connect(port, client=LOOPBACK):
    return socket.create_connection((LOOPBACK, port), timeout=5, source_address=(client, 0))


def status(port, path="/livez", client=LOOPBACK):
    with closing(HTTPConnection(LOOPBACK, port, timeout=5, source_address=(client, 0))) as connection:
        connection.request("GET", path)
        return connection.getresponse().status


def is_closed(connection):
    """Say whether the server has ended a connection, once what it sent before is read."""
    with suppress(ConnectionError):
        while select.select([connection], [], [], 0)[0]:
            if not connection.recv(1 << 16):
                return True
        return False
    return True


def seconds_until_closed(connection, each_time):
    """Do something again and again until the server ends the connection."""
    started = time.monotonic()
    with suppress(ConnectionError, ssl.SSLError):
        while time.monotonic() - started < 60:
            each_time(connection)
            if select.select([connection], [], [], 0.05)[0] and not connection.recv(1):
                break
    return time.monotonic() - started


# Slow clients


@pytest.mark.parametrize(
    ("beginning", "piece"),
    [
        (b"", b""),
        (b"GET /livez HTTP/1.1\r\nX-Header: ", b"x"),
        (b"POST /livez HTTP/1.1\r\nHost: pod\r\nContent-Length: 9000\r\n\r\n", b"x"),
        (b"POST /livez HTTP/1.1\r\nHost: pod\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    ],
    ids=["silent", "headers", "body", "chunks"],
)
def test_a_request_that_trickles_in_is_cut_off_at_the_deadline(short_deadline, port, beginning, piece):
    with connect(port) as slow:
        slow.sendall(beginning)
        assert seconds_until_closed(slow, lambda it: it.sendall(piece)) < 5 * SHORT_DEADLINE


@pytest.mark.parametrize("beginning", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"], ids=["silent", "half"])
def test_a_handshake_that_does_not_end_is_cut_off_at_the_deadline(short_deadline, metrics, health, identity, beginning):
    with HttpEndpoint(LOOPBACK, 0, metrics, health, identity) as running, connect(running.port) as slow:
        slow.sendall(beginning)
        assert seconds_until_closed(slow, lambda _: None) < 5 * SHORT_DEADLINE


def test_an_answer_that_is_read_slowly_is_cut_off_at_the_deadline(short_deadline, metrics, port, monkeypatch):
    monkeypatch.setattr(metrics, "render", lambda: b"x" * 30_000_000)
    with connect(port) as slow:
        slow.sendall(REQUEST.replace(b"livez", b"metrics"))
        time.sleep(2 * SHORT_DEADLINE)  # the client's pause is the attack
        with suppress(ConnectionError):
            received = sum(len(part) for part in iter(lambda: slow.recv(1 << 20), b""))
            assert received < 30_000_000


def test_a_connection_serves_one_request(port):
    with connect(port) as greedy:
        greedy.sendall(REQUEST * 100)
        answered = b"".join(iter(lambda: greedy.recv(1 << 16), b""))
    assert answered.count(b"HTTP/1.1 200") == 1


# Many clients


def test_of_too_many_connections_the_oldest_are_closed(port):
    with ExitStack() as stack:
        silent = [stack.enter_context(connect(port)) for _ in range(3 * MAX_CONNECTIONS)]
        assert status(port) == 200
        closed = [is_closed(one) for one in silent]
        assert closed == sorted(closed, reverse=True)
        assert closed.count(False) <= MAX_CONNECTIONS


def test_a_client_with_few_connections_keeps_them_while_another_opens_many(port):
    with ExitStack() as stack:
        probe = stack.enter_context(connect(port, OTHER_CLIENT))
        for _ in range(3 * MAX_CONNECTIONS):
            stack.enter_context(connect(port))
        assert status(port) == 200
        probe.sendall(REQUEST)
        assert probe.recv(1 << 16).startswith(b"HTTP/1.1 200")


def test_many_scrapes_cost_no_more_than_one_now_and_then(metrics, port, monkeypatch):
    rendered = []
    monkeypatch.setattr(metrics, "render", lambda: rendered.append(1) or b"")
    started = time.monotonic()
    for _ in range(50):
        assert status(port, "/metrics") == 200
    assert len(rendered) <= 1 + (time.monotonic() - started) / RENDER_INTERVAL_S


# Few files

FEW_FILES = 64
SERVE = """
import resource, sys, threading
from fraud_service.runtime.health import Health, HttpEndpoint
from fraud_service.runtime.metrics.stream import Metrics
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
with HttpEndpoint("127.0.0.1", 0, Metrics(), Health()) as endpoint:
    print(endpoint.port, flush=True)
    held = []
    for line in sys.stdin:
        try:
            while line == "take all files\\n":
                held.append(open("/dev/null"))
        except OSError:
            pass
        if line == "give one back\\n":
            held.pop().close()
        print("done", flush=True)
"""


@pytest.fixture
def few_files():
    """Give a process that may open 64 files and serves: its port, and how to tell it something."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        port = int(process.stdout.readline())

        def tell(line):
            process.stdin.write(line + "\n")
            process.stdin.flush()
            assert process.stdout.readline() == "done\n"

        yield port, tell
        process.stdin.close()
        assert process.stderr.read() == ""


def test_with_few_files_many_connections_take_a_quarter_of_them_and_keep_no_probe_waiting(few_files):
    port, _ = few_files
    with ExitStack() as stack:
        silent = [stack.enter_context(connect(port)) for _ in range(250)]
        assert status(port, client=OTHER_CLIENT) == 200
        assert [is_closed(one) for one in silent].count(False) <= FEW_FILES // 4


def test_a_process_without_a_free_file_answers_as_soon_as_it_has_one(few_files):
    port, tell = few_files
    tell("take all files")
    with connect(port) as early:
        early.sendall(REQUEST)
        assert not select.select([early], [], [], 0.3)[0]
        tell("give one back")
        assert early.recv(1 << 16).startswith(b"HTTP/1.1 200")


# Large and malformed requests


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /livez HTTP/1.1\r\nX: " + b"x" * 4 * MAX_REQUEST_BYTES,
        b"GET /" + b"x" * 4 * MAX_REQUEST_BYTES,
        b"POST /livez HTTP/1.1\r\nHost: pod\r\nContent-Length: 99999999999\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"\r\n\r\n" * 100,
    ],
    ids=["headers", "path", "body", "tls", "smuggled", "nothing"],
)
def test_a_request_that_is_too_large_or_malformed_is_refused_at_once_and_without_a_log(port, request_bytes, caplog):
    with connect(port) as hostile, suppress(ConnectionError):
        hostile.sendall(request_bytes)
        answer = b"".join(iter(lambda: hostile.recv(1 << 16), b""))
        assert answer[9:12] in {b"", b"400", b"405", b"413", b"431"}
    assert status(port) == 200
    assert caplog.records == []


@given(
    junk=st.one_of(
        st.binary(max_size=400),
        st.from_regex(r"(GET|POST) /[a-z]{0,9}[^\n]{0,99} HTTP/1\.[01]\r\n(.*\r\n){0,5}.*", fullmatch=True),
    )
)
@hypothesis.settings(
    max_examples=300, deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
def test_whatever_bytes_are_sent_the_next_request_is_answered_and_nothing_is_logged(shared_port, caplog, junk):
    with suppress(ConnectionError), connect(shared_port) as hostile:
        hostile.sendall(junk if isinstance(junk, bytes) else junk.encode())
        hostile.shutdown(socket.SHUT_WR)
        assert len(hostile.recv(1 << 20)) < 1 << 20
    assert status(shared_port) == 200
    assert caplog.records == []


def test_the_answer_says_nothing_of_the_server(port):
    with closing(HTTPConnection(LOOPBACK, port, timeout=5)) as connection:
        connection.request("GET", "/livez")
        assert connection.getresponse().getheader("Server") is None


def test_an_error_of_our_own_is_a_record_of_the_log_and_no_traceback_for_the_client(port, metrics, monkeypatch, caplog):
    monkeypatch.setattr(metrics, "render", lambda: 1 / 0)
    with closing(HTTPConnection(LOOPBACK, port, timeout=5)) as connection:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        assert answer.status == 500
        assert b"ZeroDivision" not in answer.read()
    (record,) = caplog.records
    assert record.exc_info[0] is ZeroDivisionError
    assert record.levelname == "ERROR"


# TLS


def name_seen(port, root):
    """Ask over HTTPS; returns the common name in the certificate."""
    with closing(HTTPSConnection(LOOPBACK, port, timeout=5, context=ssl.create_default_context(cafile=root))) as asked:
        asked.request("GET", "/livez")
        subject = asked.sock.getpeercert()["subject"]
        assert asked.getresponse().status == 200
        return dict(field[0] for field in subject)["commonName"]


def wait_until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_with_a_certificate_everything_is_https_and_a_renewed_one_is_taken_up(tmp_path, metrics, health):
    authority = Authority(tmp_path)
    first = authority.sign("first", LOOPBACK)
    with HttpEndpoint(LOOPBACK, 0, metrics, health, (first.certificate, first.key)) as running:
        assert name_seen(running.port, authority.root) == "first"
        with closing(
            socket.create_connection((LOOPBACK, running.port), timeout=5)
        ):  # says nothing, and holds nobody up
            assert name_seen(running.port, authority.root) == "first"
        with pytest.raises((ssl.SSLError, OSError)):
            name_seen(running.port, Authority(tmp_path, "stranger").root)
        second = authority.sign("second", LOOPBACK)
        first.key.write_bytes(second.key.read_bytes())
        first.certificate.write_bytes(second.certificate.read_bytes())
        wait_until(lambda: name_seen(running.port, authority.root) == "second")
        with capture_logs() as logged:
            first.certificate.write_text("half written")
            wait_until(lambda: logged)
            time.sleep(3 * CHECK_INTERVAL_S)  # the server looks again, and has said it already
        assert [record["event"] for record in logged] == ["certificate_not_renewed"]
        assert name_seen(running.port, authority.root) == "second"


@pytest.mark.parametrize("spoiled", ["certificate", "key"])
def test_a_certificate_that_cannot_be_used_stops_the_start(tmp_path, metrics, health, spoiled):
    good = Authority(tmp_path).sign("good", LOOPBACK)
    getattr(good, spoiled).write_text("nothing")
    with pytest.raises(ConfigurationError, match=r"FRAUD_HTTP_TLS_CERT=.*FRAUD_HTTP_TLS_KEY=.*cannot be used"):
        HttpEndpoint(LOOPBACK, 0, metrics, health, (good.certificate, good.key))
