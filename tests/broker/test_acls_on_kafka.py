"""Grant exactly the table of ACLs in docs/secure.md, and run every component with its own user."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import uuid
from datetime import timedelta
from pathlib import Path

import pytest
from confluent_kafka.admin import AclBinding, AclOperation, AclPermissionType, ResourcePatternType, ResourceType
from support import apache_kafka as kafka
from support.processes import Done, Service, Tail, environment, read_all, run_here

from fraud_service.config.settings import Settings
from fraud_service.demo.broker import LOOPBACK, free_loopback_port
from fraud_service.kafka import clients

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "secure.md"
HELM_TEST = ROOT / "helm" / "fraud-service" / "files" / "score_one.py"
USERS = (
    "scorer",
    "learner",
    "refit",
    "topics",
    "feed",
    "reset",
    "tokenizer",
    "auditor",
    "operator",
    "redriver",
    "test",
    "outsider",
)
RESOURCES = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional id": ResourceType.TRANSACTIONAL_ID,
}
OPERATIONS = {
    "Read": AclOperation.READ,
    "Write": AclOperation.WRITE,
    "Create": AclOperation.CREATE,
    "Delete": AclOperation.DELETE,
    "Describe": AclOperation.DESCRIBE,
    "DescribeConfigs": AclOperation.DESCRIBE_CONFIGS,
}


class GuardedKafka(kafka.ApacheKafka):
    """A broker with a second listener, which requires a login and enforces ACLs."""

    def _prepare(self) -> None:
        super()._prepare()
        self.guarded = f"{LOOPBACK}:{free_loopback_port()}"
        users = " ".join(f'user_{name}="{name}-secret"' for name in USERS)
        text = self._config.read_text()
        listeners = re.search("^listeners=.*$", text, re.MULTILINE)[0]
        advertised = re.search("^advertised.listeners=.*$", text, re.MULTILINE)[0]
        self._config.write_text(
            f"{text}\n{listeners},SASL://{self.guarded}\n{advertised},SASL://{self.guarded}\n"
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_PLAINTEXT\n"
            "sasl.enabled.mechanisms=PLAIN\n"
            "listener.name.sasl.plain.sasl.jaas.config="
            f"org.apache.kafka.common.security.plain.PlainLoginModule required {users};\n"
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n"
            "super.users=User:ANONYMOUS\n"
        )


@pytest.fixture(scope="module")
def broker(kafka_can_run):
    with GuardedKafka() as running:
        grant(running)
        yield running


def rows() -> list[list[str]]:
    section = PAGE.read_text().split("\n## Kafka ACLs\n")[1].split("\n## ")[0]
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.count("|") == 5
    ]
    return cells[2:]


def bindings(row: list[str]) -> list[AclBinding]:
    users, resource, names, operations = row
    return [
        AclBinding(
            RESOURCES[resource],
            name.rstrip("*"),
            ResourcePatternType.PREFIXED if name.endswith("*") else ResourcePatternType.LITERAL,
            f"User:{user.strip()}",
            "*",
            OPERATIONS[operation.strip()],
            AclPermissionType.ALLOW,
        )
        for user in users.split(",")
        for name in re.findall("`([^`]+)`", names)
        for operation in operations.split(",")
    ]


def grant(broker: GuardedKafka) -> None:
    wanted = [binding for row in rows() for binding in bindings(row)]
    assert len(wanted) > 30
    admin = clients.admin(Settings(bootstrap_servers=broker.bootstrap))
    for made in admin.create_acls(wanted).values():
        made.result(30)


def login(user: str) -> dict[str, str]:
    credentials = {"sasl.mechanisms": "PLAIN", "sasl.username": user, "sasl.password": f"{user}-secret"}
    return {"FRAUD_KAFKA_CONFIG": json.dumps({"security.protocol": "SASL_PLAINTEXT", **credentials})}


@pytest.fixture
def settings(broker, tmp_path):
    return Settings(
        bootstrap_servers=broker.guarded,
        state_dir=tmp_path,
        http_host=LOOPBACK,
        instance_id="pod-0",
        session_timeout=timedelta(seconds=6),
    )


def run(settings: Settings, user: str, *arguments: str) -> Done:
    return run_here(settings, *arguments, **login(user))


def test_a_user_outside_the_table_has_no_rights(settings):
    done = run(settings, "outsider", "topics", "create")
    assert done.returncode == 1
    assert "uthorization failed" in done.stderr


def test_every_component_runs_with_only_its_rights_of_the_table(broker, settings, tmp_path):
    assert run(settings, "topics", "topics", "create").returncode == 0
    assert run(settings, "topics", "topics", "check").stdout == "all topics are as they should be\n"
    history = tmp_path / "payments.jsonl"
    card = f"c-{uuid.uuid4().hex[:6]}"
    payments = [
        {
            "transaction_id": f"t-{number}", "timestamp": f"2026-01-{number // 6 + 1:02}T{number % 6 * 4:02}:00:00Z",
            "card_id": card, "merchant_id": "m-1", "amount": "9.90", "currency": "EUR", "is_fraud": number % 2 == 0,
        }
        for number in range(30)  # five days
    ]  # fmt: skip
    history.write_text("".join(json.dumps(payment) + "\n" for payment in payments))
    scorer = Service(settings, "score", tmp_path / "scorer", login("scorer"))
    learner = Service(settings, "learn", tmp_path / "learner", login("learner"))
    watcher = settings.model_copy(update={"bootstrap_servers": broker.bootstrap})
    with scorer, learner:
        scorer.await_ready()
        learner.await_ready()
        done = run(settings, "feed", "feed", str(history), "--label-delay", "1d")
        assert done.returncode == 0, done.stderr
        for role, count in (("scores", 30), ("snapshots", 1), ("labelled", 12), ("risk", 1)):
            tail = Tail(watcher, getattr(settings.topics, role))
            learner.wait_until(lambda tail=tail, count=count: len(tail.read()) >= count, 90)
            tail.close()
        producer = clients.producer(watcher)
        for topic in (settings.topics.transactions, settings.topics.labels):
            producer.produce(topic, key=b"c", value=b"{")
        assert producer.flush(30) == 0
        letters = Tail(watcher, settings.topics.dead_letters)
        scorer.wait_until(lambda: len(letters.read()) == 2, 60)
        letters.close()
        assert scorer.stop() == 0, scorer.log()
        assert learner.stop() == 0, learner.log()
        scorer.start()
        learner.start()  # on committed offsets and state
        scorer.await_ready()
        learner.await_ready()
        for process in (scorer, learner):
            assert "uthorization" not in process.log()
    deep = ["verify", "--state", "--replay"]
    for command in (deep, ["replay"], ["dead-letters", "list"], ["explain", "t-3", "--card", card]):
        done = run(settings, "auditor", *command)
        assert done.returncode == 0, done.stderr
    done = run(settings, "redriver", "dead-letters", "redrive", "--yes")
    assert (done.returncode, done.stdout) == (0, "sent again: 2, left: 0, forged: 0\n"), done.stderr
    for command in (["models", "list"], ["online", "off"], ["online", "on"]):
        done = run(settings, "operator", *command)
        assert done.returncode == 0, done.stderr
    signing = settings.model_copy(update={"signing_key_dir": keys(tmp_path / "signing"), "deployment": "test"})
    assert run(signing, "operator", "sign", "--unsigned", "--yes").stdout.endswith("done\n")
    for group in (settings.scorer_group, settings.learner_group):
        assert run(settings, "reset", "reset", group, "--yes").stdout.endswith("done\n")
    done = run(settings, "refit", "refit")
    assert done.returncode == 1, done.stderr
    assert "nothing was compared" in done.stderr
    found = json.loads(done.stdout)
    assert (found["promoted"], found["rows"] > 10) == (None, True)


def keys(folder: Path) -> Path:
    folder.mkdir()
    (folder / "k2026").write_text("k" * 64)
    return folder


def test_the_tokenizer_runs_with_only_its_rights_of_the_table(broker, settings, tmp_path):
    inside = settings.model_copy(update={"tokenizer_key_dir": keys(tmp_path / "tokens")})
    assert run(inside, "topics", "topics", "create").returncode == 0
    watcher = settings.model_copy(update={"bootstrap_servers": broker.bootstrap})
    with Service(inside, "tokenize", tmp_path / "edge", login("tokenizer")) as edge:
        edge.await_ready()
        before = {role: len(read_all(watcher, getattr(settings.topics, role))) for role in ("labels", "dead_letters")}
        producer = clients.producer(watcher)
        producer.produce(settings.topics.raw_labels, key=b"4242424242424242", value=b'{"card_id": "4242424242424242"}')
        producer.produce(settings.topics.raw_labels, key=b"c", value=b'{"cvv": "123"}')
        assert producer.flush(30) == 0
        for role, count in before.items():
            edge.wait_until(
                lambda role=role, count=count: len(read_all(watcher, getattr(settings.topics, role))) > count, 60
            )
        assert edge.stop() == 0
        assert "uthorization" not in edge.log()


def test_the_test_of_a_release_runs_with_only_its_rights_of_the_table(settings, tmp_path):
    assert run(settings, "topics", "topics", "create").returncode == 0
    with Service(settings, "score", tmp_path / "scorer", login("scorer")) as scorer:
        scorer.await_ready()
        done = subprocess.run(
            [sys.executable, HELM_TEST],
            env=environment(settings) | login("test"), capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.stdout.startswith("scored after "), done.stderr
        assert scorer.stop() == 0


def test_the_table_names_every_topic_and_group_of_the_service():
    text = "\n".join(cell for row in rows() for cell in row)
    for name in Settings().topics.model_dump().values():
        assert f"`{name}`" in text, name
