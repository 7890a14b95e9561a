"""Clients of other languages read alerts out of the box, and put a card into the same partition as the service."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka.admin import NewTopic
from support import apache_kafka, fetched
from support.processes import fresh_settings, read_all

from fraud_service.kafka import clients
from fraud_service.kafka.partitioner import murmur2_partition
from fraud_service.kafka.sender import OutgoingRecord, produce_all

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

PROGRAMS = Path(__file__).parents[1] / "support" / "other_clients"
KAFKAJS, AIOKAFKA, KAFKA_PYTHON = "kafkajs@2.2.4", "aiokafka==0.14.0", "kafka-python==3.0.12"
KEYS = ["card-000001", "card-000002", "card-7f3a", "tok_a_00112233445566778899aabbccddeeff", "карта-1", "c"]
FETCH_TIMEOUT_S, RUN_TIMEOUT_S = 240, 120
ALERTS = 300


def run(words: list[object], folder: Path, timeout_s: float, **variables: str) -> str:
    done = subprocess.run(
        [*map(str, words)], cwd=folder, capture_output=True, text=True, timeout=timeout_s, check=False,
        env=os.environ | {"LANG": "C.UTF-8"} | variables,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def fetch(name: str, program: str, words: list[object]) -> Path:
    """Return a folder with what a package client fetched; skip where it is missing or cannot fetch."""
    folder = fetched.folder() / name
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    with fetched.tick():
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            try:
                run(words, folder, FETCH_TIMEOUT_S)
            except (AssertionError, subprocess.TimeoutExpired) as error:
                pytest.skip(f"{program} cannot fetch {name}: {error}")
            (folder / "complete").touch()
    return folder


def kafkajs(folder: Path) -> tuple[list[object], Path, dict[str, str]]:
    modules = fetch(KAFKAJS, "npm", ["npm", "install", "--no-audit", "--no-fund", "--prefix", ".", KAFKAJS])
    shutil.copy(PROGRAMS / "node" / "client.mjs", folder)
    (folder / "node_modules").symlink_to(modules / "node_modules")
    return ["node", "client.mjs"], folder, {}


def franz_go(folder: Path) -> tuple[list[object], Path, dict[str, str]]:
    if shutil.which("go") is None:
        pytest.skip("go is not installed")
    shutil.copytree(PROGRAMS / "go", folder, dirs_exist_ok=True)
    with fetched.tick():
        try:
            run(["go", "build", "-o", "client", "."], folder, FETCH_TIMEOUT_S)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            pytest.skip(f"go cannot fetch franz-go: {error}")
    return ["./client"], folder, {}


def java(folder: Path) -> tuple[list[object], Path, dict[str, str]]:
    if shutil.which("javac") is None:
        pytest.skip("javac is not installed")
    return ["java", "-cp", f"{apache_kafka.jars()}/*", PROGRAMS / "java" / "Client.java"], folder, {}


def of_python(package: str, program: str):
    def prepared(folder: Path) -> tuple[list[object], Path, dict[str, str]]:
        pip = [sys.executable, "-m", "pip", "install", "-q", "--target", ".", package]
        packages = fetch(package, sys.executable, pip)
        return [sys.executable, PROGRAMS / "python" / program], folder, {"PYTHONPATH": str(packages)}

    return prepared


CLIENTS = {
    "kafkajs": kafkajs,
    "franz-go": franz_go,
    "java": java,
    "aiokafka": of_python(AIOKAFKA, "with_aiokafka.py"),
    "kafka-python": of_python(KAFKA_PYTHON, "with_kafka_python.py"),
}


@pytest.fixture(scope="module")
def settings(apache_kafka, tmp_path_factory):
    """Settings whose topic of alerts has compressed batches, as scorers write them."""
    settings = fresh_settings(apache_kafka.bootstrap, tmp_path_factory.mktemp("clients"))
    value = b'{"outcome": "review", "reasons": []}'
    headers = [[("ce_id", f"id-{number}".encode())] for number in range(ALERTS)]
    produce_all(
        settings,
        (
            OutgoingRecord(settings.topics.alerts, b"card-%d" % number, value, headers[number])
            for number in range(ALERTS)
        ),
    )
    return settings


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_reads_every_alert_out_of_the_box_and_finds_the_partition_of_a_card(settings, tmp_path, name):
    command, folder, variables = CLIENTS[name](tmp_path)
    topics = {f"vectors-{count}-{uuid4().hex[:8]}": count for count in (4, 12)}
    admin = clients.admin(settings)  # keep a reference: a deleted client never gets its answers
    made = admin.create_topics([NewTopic(topic, count, 1) for topic, count in topics.items()])
    for answer in made.values():
        answer.result(30)
    arguments = [settings.bootstrap_servers, settings.topics.alerts, ALERTS, ",".join(topics), ",".join(KEYS)]
    found = run([*command, *arguments], folder, RUN_TIMEOUT_S, **variables).split()
    assert sorted(found) == sorted(f"id-{number}" for number in range(ALERTS))
    for topic, count in topics.items():
        placed = {message.key().decode(): message.partition() for message in read_all(settings, topic)}
        assert placed == {key: murmur2_partition(key.encode(), count) for key in KEYS}
