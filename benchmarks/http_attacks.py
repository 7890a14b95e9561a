"""Measure what slow, many and half-open HTTP clients cost a process, and how long a probe waits during the attack.

``PYTHONPATH=tests python benchmarks/http_attacks.py`` opens 2,000 connections to the metrics and probes of a process
whose main thread is busy. Each attack takes six seconds and prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import resource
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from support.certificates import Authority

LOOPBACK: Final = "127.0.0.1"
PROBE_ADDRESS: Final = "127.0.0.2"
SECONDS: Final = 6.0
HELLO: Final = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"  # the first bytes of a TLS handshake
SERVER: Final = """
import resource, sys, time
from pathlib import Path
from fraud_service.runtime.health import Health, HttpEndpoint
from fraud_service.runtime.metrics.scorer import ScorerMetrics
from fraud_service.runtime.metrics.stream import Metrics
files, identity = int(sys.argv[1]), tuple(map(Path, sys.argv[2:])) or None
resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
metrics = Metrics()
ScorerMetrics(metrics)
with HttpEndpoint("127.0.0.1", 0, metrics, Health(), identity) as endpoint:
    print(endpoint.port, flush=True)
    while True:  # a scorer at work
        until = time.perf_counter() + 0.02
        while time.perf_counter() < until:
            sum(range(300))
        time.sleep(0.005)
"""


class Attack(NamedTuple):
    """The bytes that a connection sends at first and then repeatedly, and the resources of the server."""

    first: bytes
    piece: bytes = b""
    is_tls: bool = False
    files: int = 4096


ATTACKS: Final = {
    "idle": Attack(b""),
    "idle, 64 files": Attack(b"", files=64),
    "headers trickle": Attack(b"GET /livez HTTP/1.1\r\nX: ", b"x"),
    "body trickles": Attack(b"POST /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\n", b"x"),
    "huge headers": Attack(b"GET /livez HTTP/1.1\r\nX: ", b"x" * 60_000),
    "answers not read": Attack(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 40),
    "TLS, idle": Attack(b"", is_tls=True),
    "TLS, half a handshake": Attack(HELLO, is_tls=True),
}


def probe(port: int, *, is_tls: bool) -> float | None:
    """Probe as the kubelet does; returns the seconds to the answer, or None without an answer within five seconds."""
    start = time.perf_counter()
    try:
        with socket.create_connection((LOOPBACK, port), timeout=5, source_address=(PROBE_ADDRESS, 0)) as plain:
            asked = plain
            if is_tls:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # like the kubelet
                asked = context.wrap_socket(plain)
            asked.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
            return time.perf_counter() - start if asked.recv(100).startswith(b"HTTP/1.1 200") else None
    except OSError:
        return None


def open_files(folder: Path) -> int:
    """Count the open files of a process."""
    return sum(1 for _ in (folder / "fd").iterdir())


def measure(name: str, attack: Attack, connections: int, identity: tuple[Path, Path]) -> dict[str, object]:
    """Run one attack against a separate process."""
    command = [sys.executable, "-c", SERVER, str(attack.files), *(map(str, identity) if attack.is_tls else ())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:  # noqa: S603 - our own program
        assert server.stdout is not None  # noqa: S101 - for the type checker
        port, folder = int(server.stdout.readline()), Path(f"/proc/{server.pid}")
        before = open_files(folder)
        opened: list[socket.socket] = []
        most, waits = 0, []
        for _ in range(connections):
            with suppress(OSError):
                opened.append(socket.create_connection((LOOPBACK, port), timeout=1))
                opened[-1].sendall(attack.first)
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            most = max(most, open_files(folder) - before)
            waits.append(probe(port, is_tls=attack.is_tls))
            for one in opened if attack.piece else ():
                with suppress(OSError):
                    one.setblocking(False)  # noqa: FBT003 - the only way to call it
                    one.send(attack.piece)
            time.sleep(0.5)
        status = (folder / "status").read_text()
        server.kill()
    for one in opened:
        one.close()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    answered = [wait for wait in waits if wait is not None]
    return {
        "attack": name,
        "connections": len(opened),
        "probes": len(waits),
        "probes_failed": len(waits) - len(answered),
        "slowest_probe_ms": round(max(answered, default=0) * 1000),
        "files_held": most,
        "threads": int(fields["Threads"]),
        "resident_mb": int(fields["VmRSS"].split()[0]) // 1024,
    }


def main() -> int:
    """Run every attack; returns 1 if any probe failed."""
    parser = argparse.ArgumentParser(description="Attack the metrics and probes endpoints.")
    parser.add_argument("--connections", type=int, default=2000)
    wanted = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2 * wanted.connections + 256), hard))
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        made = Authority(Path(folder)).sign("pod", LOOPBACK)
        for name, attack in ATTACKS.items():
            found = measure(name, attack, wanted.connections, (made.certificate, made.key))
            failed += int(str(found["probes_failed"]))
            sys.stdout.write(json.dumps(found) + "\n")
            sys.stdout.flush()
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
