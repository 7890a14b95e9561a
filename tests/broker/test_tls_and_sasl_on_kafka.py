"""Connect to brokers that require TLS, certificates, passwords or tokens, with valid and invalid credentials."""

from __future__ import annotations

import base64
import json
import re
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from confluent_kafka.admin import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion
from support import apache_kafka as kafka
from support.certificates import Authority
from support.processes import Service, Tail, fresh_settings, run_here
from support.worlds import MONDAY, transaction

from fraud_service.demo.broker import LOOPBACK, free_loopback_port
from fraud_service.domain.events import encode
from fraud_service.kafka import clients

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

PASSWORD = "a-long-secret"  # noqa: S105 - of this test
LISTENERS = {"TLS": "SSL", "MUTUAL": "SSL", "SCRAM": "SASL_SSL", "TOKEN": "SASL_SSL", "ELSEWHERE": "SSL"}


class SecuredKafka(kafka.ApacheKafka):
    """A broker with a listener for each kind of login. ELSEWHERE has a certificate for another host."""

    def __init__(self, here, elsewhere, root) -> None:
        super().__init__()
        self._identities = {name: elsewhere if name == "ELSEWHERE" else here for name in LISTENERS}
        self._root = root

    def _prepare(self) -> None:
        super()._prepare()
        self.at = {name: f"{LOOPBACK}:{free_loopback_port()}" for name in LISTENERS}
        text = self._config.read_text()
        listeners, advertised = (
            re.search(f"^{name}=.*$", text, re.MULTILINE)[0] for name in ("listeners", "advertised.listeners")
        )
        more = ",".join(f"{name}://{address}" for name, address in self.at.items())
        protocols = ",".join(f"{name}:{protocol}" for name, protocol in LISTENERS.items())
        lines = [
            f"{listeners},{more}",
            f"{advertised},{more}",
            f"listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,{protocols}",
            "listener.name.mutual.ssl.client.auth=required",
            "sasl.enabled.mechanisms=SCRAM-SHA-512,OAUTHBEARER",
            "listener.name.scram.sasl.enabled.mechanisms=SCRAM-SHA-512",
            (
                "listener.name.scram.scram-sha-512.sasl.jaas.config="
                "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            ),
            "listener.name.token.sasl.enabled.mechanisms=OAUTHBEARER",
            (
                "listener.name.token.oauthbearer.sasl.jaas.config="
                "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required "
                'unsecuredLoginStringClaim_sub="broker";'
            ),
        ]
        for name, identity in self._identities.items():
            prefix = f"listener.name.{name.lower()}.ssl"
            lines += [
                f"{prefix}.keystore.type=PEM",
                f"{prefix}.keystore.certificate.chain={_in_one_line(identity.certificate)}",
                f"{prefix}.keystore.key={_in_one_line(identity.key)}",
                f"{prefix}.truststore.type=PEM",
                f"{prefix}.truststore.certificates={_in_one_line(self._root)}",
            ]
        self._config.write_text("\n".join([text, *lines, ""]))


def _in_one_line(path) -> str:
    return path.read_text().replace("\n", "\\n")


@contextmanager
def issuer():
    """Serve tokens for the right secret: valid for an hour, or expired an hour ago for the client `late`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            _, _, given = self.headers["Authorization"].partition(" ")
            user, _, secret = base64.b64decode(given).decode().partition(":")
            now = int(time.time())
            claims = {"sub": user, "iat": now - 7200, "exp": now - 3600 if user == "late" else now + 3600}
            token = b".".join(
                base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in ({"alg": "none"}, claims)
            )
            body = json.dumps(
                {"access_token": token.decode() + ".", "token_type": "Bearer", "expires_in": 3600}
            ).encode()
            is_known = secret == PASSWORD
            self.send_response(200 if is_known else 401)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body if is_known else b'{"error": "invalid_client"}')

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://{LOOPBACK}:{server.server_address[1]}/token"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def logins(kafka_can_run, tmp_path_factory):
    """Return settings without a login, and for each valid and invalid login its address and options."""
    folder = tmp_path_factory.mktemp("access")
    ours, strangers = Authority(folder), Authority(folder, "stranger")
    client, unknown = ours.sign("client"), strangers.sign("client")
    tls = {"security.protocol": "SSL", "ssl.ca.location": str(ours.root)}
    sasl = tls | {"security.protocol": "SASL_SSL"}
    with (
        SecuredKafka(ours.sign("here", LOOPBACK), ours.sign("elsewhere", "10.1.2.3"), ours.root) as broker,
        issuer() as url,
    ):
        settings = fresh_settings(broker.bootstrap, folder)
        admin = clients.admin(settings)
        made = UserScramCredentialUpsertion(
            "fraud", ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096), PASSWORD.encode()
        )
        for done in admin.alter_user_scram_credentials([made]).values():
            done.result(30)
        scram = sasl | {"sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "fraud"}
        token = sasl | {
            "sasl.mechanism": "OAUTHBEARER",
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.token.endpoint.url": url,
            "sasl.oauthbearer.client.id": "fraud",
        }
        own = {"ssl.certificate.location": str(client.certificate), "ssl.key.location": str(client.key)}
        foreign = {"ssl.certificate.location": str(unknown.certificate), "ssl.key.location": str(unknown.key)}
        yield (
            settings,
            {
                "tls": (broker.at["TLS"], tls),
                "mutual": (broker.at["MUTUAL"], tls | own),
                "scram": (broker.at["SCRAM"], scram | {"sasl.password": PASSWORD}),
                "token": (broker.at["TOKEN"], token | {"sasl.oauthbearer.client.secret": PASSWORD}),
                "authority": (broker.at["TLS"], tls | {"ssl.ca.location": str(strangers.root)}),
                "host": (broker.at["ELSEWHERE"], tls),
                "no certificate": (broker.at["MUTUAL"], tls),
                "certificate": (broker.at["MUTUAL"], tls | foreign),
                "password": (broker.at["SCRAM"], scram | {"sasl.password": "another"}),
                "client": (broker.at["TOKEN"], token | {"sasl.oauthbearer.client.secret": "another"}),
                "late token": (
                    broker.at["TOKEN"],
                    token | {"sasl.oauthbearer.client.id": "late", "sasl.oauthbearer.client.secret": PASSWORD},
                ),
                "tls to none": (broker.bootstrap, tls),
            },
        )


def connecting_to(settings, login: tuple[str, dict[str, str]]):
    return settings.model_copy(update={"bootstrap_servers": login[0]})


@pytest.mark.parametrize("login", ["tls", "mutual", "scram", "token"])
def test_a_scorer_with_valid_credentials_scores(logins, tmp_path, login):
    plain, known = logins
    settings, options = connecting_to(plain, known[login]), {"FRAUD_KAFKA_CONFIG": json.dumps(known[login][1])}
    with Service(settings, "score", tmp_path, options) as scorer:
        scorer.await_ready()
        scores = Tail(plain, plain.topics.scores)
        before = len(scores.read())
        paid = transaction(f"t-{login}", MONDAY)
        sender = clients.producer(settings.model_copy(update={"kafka_config": known[login][1]}))
        sender.produce(settings.topics.transactions, key=paid.card_id.encode(), value=encode(paid))
        assert sender.flush(30) == 0
        scorer.wait_until(lambda: len(scores.read()) > before, 30)
        assert scorer.stop() == 0
        scores.close()
        assert PASSWORD not in scorer.log()


REASONS = {
    "authority": "certificate verify failed",
    "host": "certificate verify failed",
    "no certificate": "bad certificate",
    "certificate": "bad certificate",
    "tls to none": "PLAINTEXT broker listener",
    "password": "Authentication failed",
    "client": "token",
    "late token": "token",
}


def failed_start(logins, login: str) -> tuple[int, list[str], float]:
    """Start a scorer whose login fails; returns its exit code, its log lines, and the seconds that it took."""
    plain, known = logins
    options = {"FRAUD_KAFKA_CONFIG": json.dumps(known[login][1])}
    started = time.monotonic()
    done = run_here(connecting_to(plain, known[login]), "score", **options)
    assert PASSWORD not in done.stderr
    assert "another" not in done.stderr
    return done.returncode, done.stderr.strip().splitlines(), time.monotonic() - started


@pytest.mark.parametrize("login", REASONS)
def test_a_scorer_with_wrong_credentials_ends_soon_with_a_reason_and_few_log_lines(logins, login):
    code, lines, seconds = failed_start(logins, login)
    assert code == 1
    assert "rejects the connection: " in lines[-1]
    assert REASONS[login] in lines[-1]
    assert "FRAUD_KAFKA_CONFIG" in lines[-1]
    assert len(lines) < 40
    assert seconds < 30
