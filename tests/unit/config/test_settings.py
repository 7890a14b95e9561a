"""Settings: what cannot work stops the start with the name, the value and the fix; what is secret stays secret."""

from __future__ import annotations

import json
import os
import re
from datetime import timedelta
from pathlib import Path

import pytest

from fraud_service import cli
from fraud_service.config.kafka_options import RESERVED
from fraud_service.config.settings import DEFAULT_TEXTS, Settings, TopicNames, load, variables
from fraud_service.domain.errors import ConfigurationError

pytestmark = pytest.mark.usefixtures("clean_environment")
SECRET = "hunter2-and-then-some"  # noqa: S105 - a stand-in


@pytest.fixture
def environment(monkeypatch):
    """Set variables, and read the settings."""

    def read(**values):
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        return load()

    return read


def complaint(read, **values):
    with pytest.raises(ConfigurationError) as caught:
        read(**values)
    return str(caught.value)


def test_without_variables_settings_have_their_defaults(environment):
    settings = environment()
    assert settings.bootstrap_servers == "localhost:9092"
    assert settings.processing_guarantee == "exactly-once"
    assert settings.topics == TopicNames()
    assert settings.model_dir is None
    assert settings.instance_id


def test_variables_are_read(environment):
    settings = environment(
        FRAUD_BOOTSTRAP_SERVERS="a:1,b:2",
        FRAUD_PARTITIONS="12",
        FRAUD_MODEL_DIR="models/mine",
        FRAUD_REVIEW_THRESHOLD="0.25",
        FRAUD_KAFKA_CONFIG='{"security.protocol": "SASL_SSL"}',
    )
    assert settings.bootstrap_servers == "a:1,b:2"
    assert settings.partitions == 12
    assert settings.model_dir == Path("models/mine")
    assert settings.review_threshold == 0.25
    assert settings.kafka_config == {"security.protocol": "SASL_SSL"}


def test_options_of_the_command_line_override_variables(environment, monkeypatch):
    environment(FRAUD_BOOTSTRAP_SERVERS="a:1", FRAUD_PARTITIONS="12")
    settings = load(bootstrap_servers="c:3", partitions=None)
    assert settings.bootstrap_servers == "c:3"
    assert settings.partitions == 12


def test_an_option_that_was_not_given_leaves_the_default():
    assert load(bootstrap_servers=None).bootstrap_servers == "localhost:9092"


def test_settings_do_not_change_once_they_are_read(environment):
    settings = environment()
    with pytest.raises(ValueError, match="frozen"):
        settings.partitions = 8


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("FRAUD_PARTITION", "FRAUD_PARTITIONS"),
        ("FRAUD_REVIEW_TRESHOLD", "FRAUD_REVIEW_THRESHOLD"),
        ("FRAUD_BOOTSTRAP_SERVER", "FRAUD_BOOTSTRAP_SERVERS"),
        ("FRAUD_TOPICS__SCORE", "FRAUD_TOPICS__SCORES"),
        ("FRAUD_TOPICS_SCORES", "FRAUD_TOPICS__SCORES"),
        ("FRAUD_LOGLEVEL", "FRAUD_LOG_LEVEL"),
    ],
)
def test_a_misspelt_name_stops_the_start_with_the_nearest_name(environment, name, meant):
    assert complaint(environment, **{name: "1"}) == f"{name} is not a setting: did you mean {meant}?"


def test_a_name_like_no_setting_stops_the_start_and_says_where_all_are_listed(environment):
    assert "`fraud-service config` lists all settings" in complaint(environment, FRAUD_XYZZY="1")


def test_variables_of_the_test_suite_and_of_other_programs_are_ignored(environment):
    environment(FRAUD_TEST_REQUIRE_KAFKA="1", FRAUDULENT="yes", PARTITIONS="-1")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FRAUD_BOOTSTRAP_SERVERS", ""),
        ("FRAUD_PARTITIONS", "0"),
        ("FRAUD_PARTITIONS", "10001"),
        ("FRAUD_PARTITIONS", "four"),
        ("FRAUD_REPLICATION_FACTOR", "0"),
        ("FRAUD_REPLICATION_FACTOR", "11"),
        ("FRAUD_SCORER_GROUP", ""),
        ("FRAUD_LEARNER_GROUP", ""),
        ("FRAUD_INSTANCE_ID", ""),
        ("FRAUD_PROCESSING_GUARANTEE", "at-most-once"),
        ("FRAUD_COMMIT_INTERVAL", "-0.1s"),
        ("FRAUD_COMMIT_INTERVAL", "60.1s"),
        ("FRAUD_SESSION_TIMEOUT", "5.9s"),
        ("FRAUD_SESSION_TIMEOUT", "31m"),
        ("FRAUD_REVIEW_THRESHOLD", "-0.01"),
        ("FRAUD_REVIEW_THRESHOLD", "nan"),
        ("FRAUD_DECLINE_THRESHOLD", "1.01"),
        ("FRAUD_MAX_CLOCK_SKEW", "-1s"),
        ("FRAUD_MAX_CLOCK_SKEW", "inf"),
        ("FRAUD_SNAPSHOT_INTERVAL", "0.5m"),
        ("FRAUD_SNAPSHOT_INTERVAL", "inf"),
        ("FRAUD_SNAPSHOT_ACTIVATION_DELAY", "-1m"),
        ("FRAUD_SNAPSHOT_ACTIVATION_DELAY", "inf"),
        ("FRAUD_LABEL_MATURITY", "0d"),
        ("FRAUD_LABEL_RETENTION", "0d"),
        ("FRAUD_LABEL_RETENTION", "inf"),
        ("FRAUD_NEGATIVE_SAMPLE_RATE", "0"),
        ("FRAUD_NEGATIVE_SAMPLE_RATE", "1.5"),
        ("FRAUD_HTTP_PORT", "-1"),
        ("FRAUD_HTTP_PORT", "65536"),
        ("FRAUD_LOG_LEVEL", "loud"),
        ("FRAUD_TOPICS__SCORES", ""),
    ],
)
def test_an_invalid_value_is_named_with_its_variable(environment, name, value):
    said = complaint(environment, **{name: value})
    assert said.startswith(f"{name}={value!r}: ")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("name", [name for name in variables() if re.search("SKEW|INTERVAL|DELAY|THRESHOLD", name)])
def test_nan_is_rejected(environment, name):
    assert complaint(environment, **{name: "nan"}).startswith(f"{name}='nan': ")


def test_all_invalid_values_are_in_one_error(environment):
    said = complaint(environment, FRAUD_PARTITIONS="0", FRAUD_LOG_LEVEL="loud", FRAUD_HTTP_PORT="x")
    for name in ("FRAUD_PARTITIONS='0'", "FRAUD_LOG_LEVEL='loud'", "FRAUD_HTTP_PORT='x'"):
        assert name in said


def test_thresholds_in_the_wrong_order_are_rejected_with_both_values(environment):
    said = complaint(environment, FRAUD_REVIEW_THRESHOLD="0.8", FRAUD_DECLINE_THRESHOLD="0.5")
    assert said == (
        "FRAUD_DECLINE_THRESHOLD=0.5 is below FRAUD_REVIEW_THRESHOLD=0.8: raise the first or lower the second"
    )


def test_thresholds_may_be_equal(environment):
    assert environment(FRAUD_REVIEW_THRESHOLD="0.5", FRAUD_DECLINE_THRESHOLD="0.5").review_threshold == 0.5


def test_retention_shorter_than_maturity_is_rejected_with_both_values(environment):
    said = complaint(environment, FRAUD_LABEL_MATURITY="10d", FRAUD_LABEL_RETENTION="9.5d")
    assert said.startswith("FRAUD_LABEL_RETENTION=228h is shorter than FRAUD_LABEL_MATURITY=10d: ")
    assert "raise the first or lower the second" in said


def test_topic_names_are_set_one_by_one(environment):
    topics = environment(FRAUD_TOPICS__SCORES="bank.scores", FRAUD_TOPICS__DEAD_LETTERS="bank.dlq").topics
    assert (topics.scores, topics.dead_letters) == ("bank.scores", "bank.dlq")
    assert topics.alerts == TopicNames().alerts


def test_topic_names_are_set_together_as_json(environment):
    assert environment(FRAUD_TOPICS='{"risk": "bank.risk"}').topics == TopicNames(risk="bank.risk")


def test_an_unknown_topic_in_the_json_is_rejected(environment):
    assert "FRAUD_TOPICS__RISKS" in complaint(environment, FRAUD_TOPICS='{"risks": "bank.risk"}')


def test_a_copy_with_a_name_that_is_not_a_setting_is_an_error():
    assert Settings(partitions=2).model_copy(update={"partitions": 3}).partitions == 3
    with pytest.raises(ValueError, match="not settings: instance"):
        Settings().model_copy(update={"instance": "pod-0"})


def test_two_topics_with_one_name_are_rejected(environment):
    said = complaint(environment, FRAUD_TOPICS__SCORES="one", FRAUD_TOPICS__ALERTS="one")
    assert "FRAUD_TOPICS__SCORES" in said
    assert "FRAUD_TOPICS__ALERTS" in said


@pytest.mark.parametrize("name", ["FRAUD_KAFKA_CONFIG", "FRAUD_TOPICS"])
def test_a_value_that_is_not_json_is_rejected(environment, name):
    said = complaint(environment, **{name: f"sasl.password={SECRET}"})
    assert said.startswith(name)
    assert "JSON" in said
    assert SECRET not in said


@pytest.mark.parametrize("value", [[SECRET], {"sasl.password": {"value": SECRET}}, {"sasl.password": 4711_0815}])
def test_an_error_about_client_options_never_shows_their_values(environment, value):
    said = complaint(environment, FRAUD_KAFKA_CONFIG=json.dumps(value))
    assert said.startswith("FRAUD_KAFKA_CONFIG")
    assert SECRET not in said
    assert "47110815" not in said


def test_secret_options_are_read_from_the_files_of_a_mounted_secret(environment, tmp_path):
    (tmp_path / "..data").mkdir()
    (tmp_path / "sasl.password").write_text('a "quoted" $(word)\n', encoding="utf-8")
    environment(
        FRAUD_KAFKA_CONFIG='{"sasl.username": "me", "sasl.password": "old"}', FRAUD_KAFKA_CONFIG_DIR=str(tmp_path)
    )
    assert load().kafka_config == {"sasl.username": "me", "sasl.password": 'a "quoted" $(word)'}


def test_unreadable_secret_files_stop_the_start_without_showing_their_content(environment, tmp_path):
    (tmp_path / "sasl.password").write_bytes(b"\xff" + SECRET.encode())
    said = complaint(environment, FRAUD_KAFKA_CONFIG_DIR=str(tmp_path))
    assert said.startswith(f"FRAUD_KAFKA_CONFIG_DIR={tmp_path}: it has other bytes: mount")
    assert SECRET not in said
    assert complaint(environment, FRAUD_KAFKA_CONFIG_DIR=str(tmp_path / "none")).startswith("FRAUD_KAFKA_CONFIG_DIR=")


UNSAFE = [
    ("enable.ssl.certificate.verification", "False"),
    ("enable.ssl.certificate.verification", "0"),
    ("ssl.endpoint.identification.algorithm", "none"),
    ("enable.sasl.oauthbearer.unsecure.jwt", "true"),
]


@pytest.mark.parametrize(("option", "value"), UNSAFE)
def test_options_that_turn_off_broker_verification_need_allow_insecure_kafka(environment, tmp_path, option, value):
    said = complaint(environment, FRAUD_KAFKA_CONFIG=json.dumps({option: value}))
    assert said.startswith(f"FRAUD_KAFKA_CONFIG has {option}={value.lower()}: ")
    assert "ssl.ca.location" in said
    assert "FRAUD_ALLOW_INSECURE_KAFKA" in said
    (tmp_path / option).write_text(f"{value}\n")
    assert option in complaint(environment, FRAUD_KAFKA_CONFIG="{}", FRAUD_KAFKA_CONFIG_DIR=str(tmp_path))
    environment(FRAUD_ALLOW_INSECURE_KAFKA="true", FRAUD_KAFKA_CONFIG=json.dumps({option: value}))
    assert load().kafka_config[option] == value


def test_options_that_turn_on_broker_verification_are_accepted(environment):
    options = {"enable.ssl.certificate.verification": "true", "ssl.endpoint.identification.algorithm": "https"}
    environment(FRAUD_KAFKA_CONFIG=json.dumps(options))
    assert load().kafka_config == options


@pytest.mark.parametrize("option", RESERVED)
def test_an_option_that_a_guarantee_depends_on_stops_the_start_and_is_never_ignored(environment, tmp_path, option):
    said = complaint(environment, FRAUD_KAFKA_CONFIG=json.dumps({option: "other"}))
    assert said.startswith(f"FRAUD_KAFKA_CONFIG has {option}=other: ")
    (tmp_path / option).write_text("other\n")
    assert option in complaint(environment, FRAUD_KAFKA_CONFIG="{}", FRAUD_KAFKA_CONFIG_DIR=str(tmp_path))


@pytest.mark.parametrize(("option", "value"), [(name, value) for name in RESERVED for value in RESERVED[name].values])
def test_an_option_with_the_value_of_the_service_is_accepted(environment, option, value):
    environment(FRAUD_KAFKA_CONFIG=json.dumps({option: value}))
    assert load().kafka_config == {option: value}


def test_a_certificate_needs_its_key(environment):
    said = complaint(environment, FRAUD_HTTP_TLS_CERT="/tls.crt")
    assert said.startswith("FRAUD_HTTP_TLS_CERT and FRAUD_HTTP_TLS_KEY belong together")


def test_config_prints_every_setting_and_no_secret(environment, capsys):
    environment(FRAUD_KAFKA_CONFIG=json.dumps({"sasl.password": SECRET}), FRAUD_TOPICS__SCORES="bank.scores")
    cli.service.config()
    printed = capsys.readouterr().out
    shown = json.loads(printed)
    assert SECRET not in printed
    assert shown["kafka_config"] == {"sasl.password": "***"}
    assert shown["topics"]["scores"] == "bank.scores"
    assert set(shown) == set(Settings.model_fields)


def test_every_setting_is_documented_with_its_default():
    table = variables()
    fields = [name for name in Settings.model_fields if name != "topics"]
    assert set(table) == {
        *(f"FRAUD_{name.upper()}" for name in fields),
        *(f"FRAUD_TOPICS__{name.upper()}" for name in TopicNames.model_fields),
    }
    assert all(default and meaning for default, meaning in table.values())


def test_the_documented_defaults_are_the_values_without_variables(environment, monkeypatch):
    in_words = {*DEFAULT_TEXTS, *(name for name, field in Settings.model_fields.items() if field.default is None)}
    unset = load().model_dump(exclude=in_words)
    documented = {
        name: default
        for name, (default, _) in variables().items()
        if name not in {f"FRAUD_{field.upper()}" for field in in_words}
    }
    assert environment(**documented).model_dump(exclude=in_words) == unset


@pytest.mark.parametrize(
    "name", ["MAX_CLOCK_SKEW", "SNAPSHOT_INTERVAL", "SNAPSHOT_ACTIVATION_DELAY", "LABEL_MATURITY", "LABEL_RETENTION"]
)
@pytest.mark.parametrize("value", ["1e308d", "1e12d", "nan", "-1d", "36501d", "9" * 30 + "d"])
def test_a_duration_out_of_bounds_stops_the_start(environment, name, value):
    assert f"FRAUD_{name}='{value}'" in complaint(environment, **{f"FRAUD_{name}": value})


def test_a_label_maturity_below_a_millisecond_is_an_error(environment):
    tiny = f"0.{'0' * 29}1d"
    assert f"FRAUD_LABEL_MATURITY={tiny!r}" in complaint(environment, FRAUD_LABEL_MATURITY=tiny)


DURATIONS = [name for name, field in Settings.model_fields.items() if field.annotation is timedelta]


@pytest.mark.parametrize("name", DURATIONS)
@pytest.mark.parametrize("value", ["30", "0", "1.5", ""])
def test_a_duration_without_a_unit_stops_the_start_with_the_fix(environment, name, value):
    variable = f"FRAUD_{name.upper()}"
    assert complaint(environment, **{variable: value}) == (
        f"{variable}={value!r}: write a number and its unit, ms, s, m, h or d, as in 7d"
    )


def test_code_cannot_set_a_duration_without_a_unit():
    with pytest.raises(ValueError, match="write a number and its unit"):
        Settings(session_timeout=45)


def test_every_duration_setting_has_its_unit_in_its_type():
    assert DURATIONS == [
        "session_timeout",
        "commit_interval",
        "max_clock_skew",
        "snapshot_interval",
        "snapshot_activation_delay",
        "label_maturity",
        "label_retention",
    ]


def test_the_documented_defaults_of_durations_carry_their_units():
    table = variables()
    assert {name: table[f"FRAUD_{name.upper()}"][0] for name in DURATIONS} == {
        "session_timeout": "45s",
        "commit_interval": "100ms",
        "max_clock_skew": "5m",
        "snapshot_interval": "1h",
        "snapshot_activation_delay": "15m",
        "label_maturity": "7d",
        "label_retention": "60d",
    }


@pytest.mark.parametrize(
    "name",
    [
        "KAFKA_CONFIG_DIR",
        "SIGNING_KEY_DIR",
        "TOKENIZER_KEY_DIR",
        "MODEL_DIR",
        "STATE_DIR",
        "HTTP_TLS_CERT",
        "HTTP_TLS_KEY",
    ],
)
def test_an_empty_path_is_not_the_working_directory(environment, name):
    said = complaint(environment, **{f"FRAUD_{name}": ""})
    assert f"FRAUD_{name}=''" in said
    assert "name a path, or remove the variable" in said


@pytest.mark.parametrize("name", ["..", ".", "../../etc", "a/b", "a b", "", "x" * 201])
def test_a_group_name_is_not_a_path_and_fits_a_topic_name(environment, name):
    assert f"FRAUD_SCORER_GROUP={name!r}" in complaint(environment, FRAUD_SCORER_GROUP=name)


@pytest.mark.parametrize("name", ["a b", "../x", "x" * 250, "\x1b[2J", ""])
def test_a_topic_name_is_valid_for_brokers(environment, name):
    assert f"FRAUD_TOPICS__SCORES={name!r}" in complaint(environment, FRAUD_TOPICS__SCORES=name)


@pytest.mark.parametrize("role", ["LEARNER", "TOKENIZER"])
def test_two_kinds_of_process_cannot_share_a_group(environment, role):
    said = complaint(environment, **{"FRAUD_SCORER_GROUP": "one", f"FRAUD_{role}_GROUP": "one"})
    assert f"FRAUD_{role}_GROUP=one" in said
    assert "must differ" in said


def test_bytes_that_are_not_utf8_stop_the_start_with_an_error(environment, monkeypatch, tmp_path):
    monkeypatch.setitem(os.environb, b"FRAUD_INSTANCE_ID", b"pod-\xff")
    assert "FRAUD_INSTANCE_ID is not UTF-8" in complaint(environment)
    monkeypatch.delenv("FRAUD_INSTANCE_ID")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/sasl.\xff")).write_text("x")
    assert "UTF-8" in complaint(environment, FRAUD_KAFKA_CONFIG_DIR=str(tmp_path))


@pytest.mark.parametrize(
    "make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir], ids=["fifo", "link", "folder"]
)
def test_only_files_are_read_as_secrets(environment, tmp_path, make):
    make(tmp_path / "sasl.password")
    assert f"FRAUD_KAFKA_CONFIG_DIR={tmp_path}" in complaint(environment, FRAUD_KAFKA_CONFIG_DIR=str(tmp_path))


def test_the_bound_of_a_duration_is_written_as_a_setting_would_be(environment):
    assert "must be at most 36500d" in complaint(environment, FRAUD_LABEL_MATURITY="1000000d")
