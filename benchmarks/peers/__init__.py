"""Peers of the scorer: other frameworks that do the same job on the same topics.

Each function builds its peer and returns the first words of its command line. The rest is the same for all peers:
`BOOTSTRAP SOURCE SCORES GROUP FOLDER GUARANTEE [COMMIT_MS]`. A peer creates its output topics (`SCORES`,
`SCORES.alerts`, `SCORES.dead-letters`), keeps its local files in `FOLDER`, and runs until a signal ends it.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fraud_service.models.artifact import shipped_folder

if TYPE_CHECKING:
    from collections.abc import Callable

HERE: Final = Path(__file__).resolve().parent
PROJECT: Final = HERE / "kafka_streams"
CACHE: Final = HERE.parent.parent / ".cache" / "peers"  # not committed
OLDEST_JAVA: Final = 17
BUILD_TIMEOUT: Final = 300.0  # seconds
# Only one thread works, so the serial collector, which needs the fewest barriers, costs least. A fixed heap size saves
# the first collections, which only adapt the size.
JAVA_OPTIONS: Final = (
    "-XX:+UseSerialGC",
    "-Xms512m",
    "-Xmx512m",
    "-XX:-UsePerfData",
    "-Djava.net.preferIPv4Stack=true",
)


class PeerError(RuntimeError):
    """Building or running a peer failed. The message gives the reason."""


def kafka_streams() -> list[str]:
    """Build the Kafka Streams peer through Maven, once for each state of its sources.

    Raises
    ------
    PeerError
        When Java or Maven is missing, or the build fails.
    """
    java = _java()
    pom = PROJECT / "pom.xml"
    sources = sorted((PROJECT / "src").rglob("*.java"))
    jars = _built("jars", [pom], ["dependency:copy-dependencies", "-DoutputDirectory={folder}"])
    classes = _built("classes", [pom, *sources], ["compile"]) / "classes"
    path = f"{classes}:{jars}/*"
    return [java, *JAVA_OPTIONS, f"-Dmodel={shipped_folder()}", "-cp", path, "fraud.peer.Main"]


def bytewax() -> list[str]:
    """Return the command of the bytewax peer.

    Raises
    ------
    PeerError
        When Bytewax is not installed, for example because it has no wheel for this Python.
    """
    if find_spec("bytewax") is None:
        version = ".".join(map(str, sys.version_info[:2]))
        raise PeerError(f"bytewax is not installed; it has no wheel for every Python, and this is {version}")
    return [sys.executable, str(HERE / "bytewax_peer.py")]


PEERS: Final[dict[str, Callable[[], list[str]]]] = {"Kafka Streams": kafka_streams, "bytewax": bytewax}
EXACTLY_ONCE: Final = ("Kafka Streams",)  # Bytewax's sink has no transactions


def _java() -> str:
    java = shutil.which("java")
    if java is None:
        raise PeerError(f"Java {OLDEST_JAVA} or newer is not installed")
    banner = subprocess.run([java, "-version"], capture_output=True, text=True, check=False, timeout=30).stderr  # noqa: S603
    version = re.search(r'version "(\d+)', banner)
    if version is None or int(version[1]) < OLDEST_JAVA:
        raise PeerError(f"the peer needs Java {OLDEST_JAVA} or newer, this is: {banner.strip() or 'unknown'}")
    return java


def _built(name: str, sources: list[Path], goals: list[str]) -> Path:
    """Return a folder that Maven built from these sources. A folder with the final name is always complete."""
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
    target = CACHE / f"{name}-{digest}"
    if target.is_dir():
        return target
    maven = shutil.which("mvn")
    if maven is None:
        raise PeerError("Maven (mvn), which builds the Kafka Streams peer, is not installed")
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{target.name}.", dir=CACHE) as scratch:
        filled = Path(scratch) / "filled"
        command = [maven, "-q", "-B", "-f", str(PROJECT / "pom.xml"), f"-Dpeer.folder={filled}"]
        command += [goal.format(folder=filled) for goal in goals]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=BUILD_TIMEOUT)  # noqa: S603
        except (OSError, subprocess.TimeoutExpired) as error:
            raise PeerError(f"building the Kafka Streams peer failed: {error}") from error
        if done.returncode != 0:
            raise PeerError(f"building the Kafka Streams peer failed:\n{(done.stdout + done.stderr)[-3000:]}")
        try:
            filled.rename(target)
        except OSError:  # another process built the same folder first
            if not target.is_dir():
                raise
    return target
