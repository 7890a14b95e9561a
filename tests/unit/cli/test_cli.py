"""The command line: data on stdout, one line of complaint on stderr, exit 0, 1 (failed) or 2 (wrong usage)."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys

import pytest
import typer

from fraud_service import cli
from fraud_service.__main__ import SERVICES
from fraud_service.cli import service
from fraud_service.cli.options import duration_ms
from fraud_service.config.settings import load, variables
from fraud_service.domain.decision import Policy
from fraud_service.domain.errors import ConfigurationError
from fraud_service.kafka import topics
from fraud_service.verification.decisions import TimeRange
from fraud_service.verification.replay import Plan

SECRET = "hunter2-and-then-some"  # noqa: S105 - a stand-in
SMALL = ("--cards", "8", "--merchants", "40", "--days", "3")
HEADER = "transaction_id,timestamp,card_id,merchant_id,amount,currency\n"
COMMANDS = ["score", "learn", "label", "feed", "simulate", "train", "demo", "config", "reset", "topics"]
COMMANDS += ["tokenize", "backtest", "refit", "models", "online", "verify", "replay", "explain", "state", "snapshots"]
COMMANDS += ["dead-letters", "recover", "repartition", "erase", "sign", "inspect"]


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")


@pytest.fixture
def no_feed(monkeypatch):
    """Fail the test when a command that must not send anything opens a producer."""

    def forbidden(*_, **__):
        pytest.fail("a producer was opened")

    monkeypatch.setattr("fraud_service.kafka.clients.producer", forbidden)


def only_complaint(result, code):
    """Check that a command ended with this code and one line on stderr; gives the line."""
    ended, out, err = result
    assert (ended, out) == (code, "")
    assert "Traceback" not in err
    assert len(err.splitlines()) == 1, err
    return err.rstrip("\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["bogus"],
        ["topics", "bogus"],
        ["config", "--bogus"],
        ["feed"],
        ["feed", "x.csv", "--rate", "fast"],
        ["feed", "x.csv", "--rate", "0"],
        ["feed", "x.csv", "--from", "yesterday"],
        ["train", "x.csv"],
        ["simulate", "x.csv", "--cards", "many"],
        ["label"],
        ["label", "t1", "--card", "c1"],
        ["label", "t1", "--fraud"],
        ["label", "t1", "--file", "x.csv"],
        ["label", "--card", "c1", "--file", "x.csv"],
        ["label", "t1", "--card", "c1", "--fraud", "--source", "rumour"],
        ["demo", "--seconds", "1"],
        ["reset"],
        ["explain"],
        ["replay", "--review-threshold", "2"],
        ["replay", "--from", "yesterday"],
        ["state", "--card", "c1"],
        ["snapshots", "diff", "one"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_2_and_prints_the_usage(run, arguments):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "Usage: fraud-service" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--review-threshold", "0.25"), Policy(0.25, 0.9)),
        (("--decline-threshold", "0.8"), Policy(0.3, 0.8)),
        (("--review-threshold", "0.2", "--decline-threshold", "0.7"), Policy(0.2, 0.7)),
    ],
)
def test_a_threshold_option_replaces_the_setting_in_a_what_if_replay(run, monkeypatch, options, expected):
    asked = []

    def compared(_settings, _plan, candidate, _tick):
        asked.append(candidate.policy)
        raise ConfigurationError("that is enough")

    monkeypatch.setattr("fraud_service.kafka.clients.require_connection", lambda _: None)
    monkeypatch.setattr("fraud_service.verification.replay.plan", lambda *_: Plan("scores", TimeRange(), {}, {}))
    monkeypatch.setattr("fraud_service.verification.what_if.compare", compared)
    code, _, err = run("replay", *options)
    assert (code, asked) == (2, [expected]), err


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--report", "page.html"), "--report: needs a what-if option"),
        (("--resume", "folder", "--version", "forest-1"), "--resume: does not work with a what-if option"),
    ],
)
def test_options_of_a_verification_and_a_what_if_replay_do_not_mix(run, options, complaint):
    assert complaint in only_complaint(run("replay", *options), 2)


def test_a_repaired_value_is_read_to_a_limit(run):
    line = only_complaint(run("dead-letters", "redrive", "--value-from", "/dev/zero"), 2)
    assert "/dev/zero: it has more than 65536 bytes" in line


def test_without_a_command_the_help_lists_all_commands(run):
    code, out, err = run()
    assert code == 2
    assert all(command in out + err for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(run, command):
    code, out, _ = run(command, "--help")
    assert code == 0
    assert f"Usage: fraud-service {command}" in out


@pytest.mark.parametrize("command", ["feed", "label", "recover", "repartition", "erase", "state"])
def test_the_help_of_a_command_with_many_options_has_an_example(run, command):
    assert f"As in: {command} " in run(command, "--help")[1]


PANELS = {
    "Run the service": "score learn tokenize config demo topics",
    "Make and send data": "simulate feed label inspect",
    "Train and choose models": "train backtest refit models online",
    "Verify and explain": "verify replay explain state snapshots",
    "Administer": "dead-letters reset recover repartition erase sign",
}


def test_every_command_is_in_the_group_of_its_purpose():
    groups = typer.main.get_command(cli.app).commands
    found = {name: command.rich_help_panel for name, command in groups.items()}
    assert found == {name: panel for panel, names in PANELS.items() for name in names.split()}


def refusal_of_the_settings():
    try:
        load()
    except ConfigurationError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", sorted(variables()))
@pytest.mark.parametrize("value", ["", "?", "-1", "a b", "[1]"])
def test_no_setting_is_refused_in_the_words_of_a_library(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    said = refusal_of_the_settings()
    assert said is None or name in said
    assert not re.search(r"Input should|String should|Value error|Error\b|\^\[|timedelta", said or ""), said


def test_the_version_is_one_line(run):
    code, out, err = run("--version")
    assert (code, err) == (0, "")
    assert re.fullmatch(r"fraud-service \S+ \(Python \S+, librdkafka \S+\)\n", out)


@pytest.mark.parametrize("group", ["topics", "models", "snapshots", "dead-letters", "online"])
def test_a_group_without_a_command_prints_its_help(run, group):
    _, out, err = run(group)
    assert f"Usage: fraud-service {group}" in out + err
    assert "Error" not in out + err


@pytest.mark.parametrize("reason", ["key-mismatch", "KEY_MISMATCH", "?"])
@pytest.mark.parametrize("command", ["list", "redrive"])
def test_an_unknown_reason_of_dead_letters_is_refused_with_the_nearest_one(run, command, reason):
    said = only_complaint(run("dead-letters", command, "--reason", reason), 2)
    assert said.startswith(f"--reason {reason}: ")
    assert ("did you mean key_mismatch?" in said) == (reason != "?")
    assert "The reasons are empty, not_utf8" in said


ODD_SETTINGS = {
    "FRAUD_LOG_LEVEL": ("loud", "write 'debug', 'info', 'warning' or 'error'"),
    "FRAUD_PARTITIONS": ("many", "write a whole number"),
    "FRAUD_TOPICS__SCORES": ("a b", "use only ASCII letters, digits and . _ -"),
    "FRAUD_SCORER_GROUP": ("../x", "with no dot at the beginning"),
    "FRAUD_DEPLOYMENT": ("a b", "without spaces"),
    "FRAUD_SESSION_TIMEOUT": ("1ms", "must be at least 6 seconds"),
    "FRAUD_REVIEW_THRESHOLD": ("2", "must be at most 1.0"),
    "FRAUD_ALLOW_UNSIGNED": ("maybe", "write true or false"),
    "FRAUD_KAFKA_CONFIG": ("[1]", "write an object"),
    "FRAUD_TOPICS": ('{"score": "x"}', "there is no such topic"),
    "FRAUD_KAFKA_CONFIG_DIR": ("/no/such/folder", "No such file or directory"),
}


@pytest.mark.parametrize("name", ODD_SETTINGS)
def test_a_wrong_setting_is_named_in_words(run, monkeypatch, name):
    value, words = ODD_SETTINGS[name]
    monkeypatch.setenv(name, value)
    said = only_complaint(run("config"), 2)
    assert said.startswith(name)
    assert words in said
    assert not re.search(r"Input should|String should|Error|\^\[", said)


def test_a_misspelt_variable_is_one_line_and_exit_code_2(run, monkeypatch):
    monkeypatch.setenv("FRAUD_PARTITION", "4")
    said = only_complaint(run("config"), 2)
    assert said == "FRAUD_PARTITION is not a setting: did you mean FRAUD_PARTITIONS?"


def test_a_missing_model_is_one_line_and_exit_code_1(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "fraud_service", "score"],
        env=os.environ | {"FRAUD_MODEL_DIR": str(tmp_path / "nowhere"), "FRAUD_ALLOW_UNSIGNED": "true"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    last = json.loads(done.stderr.splitlines()[-1])  # libraries may have warned before
    assert (last["message"], last["level"]) == ("service_ended", "error")
    assert last["reason"].startswith("no model at ")


@pytest.mark.parametrize("command", [["models", "list"], ["online", "off"], ["models", "rollback", "forest-1"]])
def test_without_keys_commands_that_verify_or_sign_end_before_they_connect(run, command):
    said = only_complaint(run(*command), 2)
    assert said.startswith("FRAUD_SIGNING_KEY_DIR is not set")


def test_commands_that_verify_nothing_need_no_keys(run):
    assert run("topics", "list")[0] == 0
    assert run("config")[0] == 0


def test_config_prints_json_without_secrets(run, monkeypatch):
    secret = [
        *("sasl.password", "ssl.key.password", "ssl.key.pem", "ssl.keystore.password", "sasl.oauthbearer.config"),
        *("sasl.oauthbearer.client.secret", "sasl.oauthbearer.assertion.private.key.passphrase"),
        *("sasl.oauthbearer.assertion.private.key.pem", "sasl.jaas.config"),
    ]
    shown_options = {"sasl.username": "scorer", "ssl.key.location": "/keys/scorer.pem", "client.id": "scorer"}
    monkeypatch.setenv("FRAUD_KAFKA_CONFIG", json.dumps(dict.fromkeys(secret, SECRET) | shown_options))
    monkeypatch.setenv("FRAUD_PARTITIONS", "12")
    monkeypatch.setenv("FRAUD_TOKENIZER_KEY_DIR", "/keys/tokens")
    code, out, err = run("config")
    shown = json.loads(out)
    assert (code, err) == (0, "")
    assert SECRET not in out
    assert shown["kafka_config"] == dict.fromkeys(secret, "***") | shown_options
    assert shown["tokenizer_key_dir"] == "/keys/tokens"
    others = {name: value for name, value in shown.items() if name != "kafka_config"}
    assert "***" not in json.dumps(others)
    assert shown["partitions"] == 12


def test_the_list_of_topics_as_json_is_the_table(run, monkeypatch):
    monkeypatch.setenv("FRAUD_PARTITIONS", "6")
    monkeypatch.setenv("FRAUD_TOPICS__SCORES", "bank.scores")
    code, out, err = run("topics", "list", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == [
        {"role": spec.role, "name": spec.name, "key": spec.key, "partitions": spec.partitions, "replication": 1}
        | spec.config()
        for spec in topics.topic_specs(load())
    ]
    by_role = {row["role"]: row for row in json.loads(out)}
    assert by_role["scores"]["name"] == "bank.scores"
    assert by_role["transactions"]["partitions"] == 6
    assert by_role["risk"]["cleanup.policy"] == "compact"


def test_the_text_list_of_topics_has_a_line_for_each(run):
    code, out, _ = run("topics", "list")
    table = topics.topic_specs(load())
    assert code == 0
    header, *lines = out.splitlines()
    assert header.split("\t")[:2] == ["role", "topic"]
    assert [line.split("\t")[:2] for line in lines] == [[spec.role, spec.name] for spec in table]


def test_listing_topics_imports_neither_models_nor_quix():
    script = """
import sys
from fraud_service import cli
sys.argv[1:] = ["topics", "list"]
try:
    cli.main()
finally:
    print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert loaded.isdisjoint({"onnxruntime", "river", "sklearn", "quixstreams", "pyarrow"})


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("7d", 604_800_000),
        ("12h", 43_200_000),
        ("30m", 1_800_000),
        ("45s", 45_000),
        ("1.5h", 5_400_000),
        ("0d", 0),
        (".5d", 43_200_000),
    ],
)
def test_durations_are_read(text, milliseconds):
    assert duration_ms(text, "--idle") == milliseconds


@pytest.mark.parametrize(
    "text", ["", "d", "7", "7w", "7 d", "-7d", "+7d", "1e3d", "7D", ".d", "1.2.3d", "nand", "infd"]
)
def test_text_that_is_not_a_duration_is_rejected_with_an_example(text):
    with pytest.raises(ConfigurationError) as caught:
        duration_ms(text, "--idle")
    assert str(caught.value).startswith(f"--idle {text!r} is not a duration: ")
    assert "as in 7d" in str(caught.value)


def test_a_duration_that_can_only_be_a_typing_error_is_rejected(run, tmp_path):
    assert "--idle 400ms: must be at least 1d" in only_complaint(run("erase", "--idle", "400ms"), 2)
    path = tmp_path / "past.csv"
    path.write_text(HEADER, encoding="utf-8")
    said = only_complaint(run("backtest", path, "--models", tmp_path, "--refit-every", "0s"), 2)
    assert "--refit-every 0s: must be at least 1h" in said


def test_simulate_writes_a_file_and_prints_the_count(run, tmp_path):
    code, out, err = run("simulate", tmp_path / "world.jsonl", *SMALL)
    said = json.loads(out)
    assert (code, err) == (0, "")
    assert said["file"] == str(tmp_path / "world.jsonl")
    assert said["transactions"] == len((tmp_path / "world.jsonl").read_text(encoding="utf-8").splitlines()) > 0


def test_the_same_seed_simulates_the_same_file(run, tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        run("simulate", tmp_path / f"{name}.csv", "--seed", seed, *SMALL)
    a, b, c = ((tmp_path / f"{name}.csv").read_bytes() for name in "abc")
    assert a == b != c


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--cards", "0"), "cards=0: must be at least 1"),
        (("--merchants", "1"), "merchants=1: must be at least 40"),
        (("--drift-day", "99"), "drift_day=99: must be from 0 to"),
    ],
)
def test_impossible_simulation_options_are_rejected(run, tmp_path, arguments, said):
    assert said in only_complaint(run("simulate", tmp_path / "world.jsonl", *arguments), 2)
    assert list(tmp_path.iterdir()) == []


def test_a_file_name_without_a_known_format_is_rejected(run, tmp_path):
    assert "cannot tell the format" in only_complaint(run("simulate", tmp_path / "world.xlsx", *SMALL), 2)


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_a_file_that_cannot_be_written_is_one_line(run, tmp_path, suffix):
    path = tmp_path / "nowhere" / f"world.{suffix}"
    assert str(path) in only_complaint(run("simulate", path, *SMALL), 2)


@pytest.mark.usefixtures("no_feed")
@pytest.mark.parametrize("command", [["feed"], ["train", "--out", "unused"]], ids=["feed", "train"])
class TestFilesThatCannotBeRead:
    def test_a_missing_file_is_named(self, run, command, tmp_path):
        path = tmp_path / "nothing.csv"
        said = only_complaint(run(command[0], path, *command[1:]), 2)
        assert said == f"{path}: this file does not exist"

    def test_a_missing_column_is_named_with_the_option_that_helps(self, run, command, tmp_path):
        path = tmp_path / "past.csv"
        path.write_text("transaction_id,timestamp,customer,merchant_id,amount\n", encoding="utf-8")
        said = only_complaint(run(command[0], path, *command[1:]), 2)
        assert "no column for `card_id`, `currency`" in said
        assert "--map" in said
        assert "--set" in said

    def test_an_invalid_row_is_named_without_its_value(self, run, command, tmp_path):
        path = tmp_path / "past.csv"
        path.write_text(
            HEADER + "t1,1700000001000,c1,m1,5.00,EUR\nt2,1700000002000,c1,m1,secret,EUR\n", encoding="utf-8"
        )
        said = only_complaint(run(command[0], path, *command[1:]), 2)
        assert "row 2, column `amount`" in said
        assert "secret" not in said

    def test_times_in_seconds_are_refused_with_the_option_that_reads_them(self, run, command, tmp_path):
        path = tmp_path / "past.csv"
        path.write_text(HEADER + "t1,1700000001,c1,m1,5.00,EUR\nt2,1700000002,c1,m1,secret,EUR\n", encoding="utf-8")
        said = only_complaint(run(command[0], path, *command[1:]), 2)
        assert "row 1, column `timestamp`: `timestamp` looks like seconds: add --time-unit s" in said
        said = only_complaint(run(command[0], path, *command[1:], "--time-unit", "s"), 2)
        assert "row 2, column `amount`" in said
        said = only_complaint(run(command[0], path, *command[1:], "--time-zone", "Mars"), 2)
        assert "--time-zone Mars: there is no such zone" in said

    @pytest.mark.parametrize("option", ["--map", "--set"])
    def test_a_pair_without_a_value_is_rejected(self, run, command, option, tmp_path):
        said = only_complaint(run(command[0], tmp_path / "past.csv", *command[1:], option, "currency"), 2)
        assert said == f"{option} currency: write NAME=VALUE"


@pytest.mark.usefixtures("no_feed")
def test_a_feed_of_no_transaction_is_an_error(run, tmp_path):
    path = tmp_path / "past.csv"
    path.write_text(HEADER + "t1,1700000000000,c1,m1,5.00,EUR\n", encoding="utf-8")
    assert "no transaction is left to send" in only_complaint(run("feed", path, "--from", "2024-01-01"), 2)


@pytest.mark.usefixtures("no_feed")
def test_a_wrong_label_delay_stops_a_feed_before_anything_is_sent(run, tmp_path):
    path = tmp_path / "past.csv"
    path.write_text(HEADER + "t1,1700000001000,c1,m1,5.00,EUR\n", encoding="utf-8")
    assert "--label-delay '7x' is not a duration" in only_complaint(run("feed", path, "--label-delay", "7x"), 2)


@pytest.mark.usefixtures("no_feed")
@pytest.mark.parametrize(
    "moment",
    [
        "yesterday",
        "2024-01-01T00:00:00",
        "9999999-01-01T00:00:00Z",
        "999999d",
        "1999-12-31T00:00:00Z",
        "1700000000",
    ],
)
def test_a_label_without_a_proper_time_is_not_sent(run, moment):
    said = only_complaint(run("label", "t1", "--card", "c1", "--fraud", "--at", moment), 2)
    assert "--at" in said


@pytest.mark.usefixtures("no_feed")
@pytest.mark.parametrize(
    "ids",
    [("", "c1"), ("t1", ""), ("t" * 129, "c1"), ("t\x1b[2J", "c1"), ("t1", "c\u202e1")],
    ids=["no id", "no card", "long id", "escape", "right to left"],
)
def test_an_invalid_label_is_not_sent(run, ids):
    only_complaint(run("label", ids[0], "--card", ids[1], "--legitimate"), 2)


@pytest.mark.usefixtures("no_feed")
def test_a_label_with_a_card_number_is_not_sent_and_the_error_does_not_show_it(run):
    said = only_complaint(run("label", "t1", "--card", "4242424242424242", "--fraud"), 2)
    assert "card number" in said
    assert "4242" not in said


@pytest.mark.usefixtures("no_feed")
@pytest.mark.parametrize(
    "command", [["feed"], ["train", "--out", "unused"], ["backtest", "--models", "unused"]], ids=lambda words: words[0]
)
def test_every_command_that_reads_a_file_refuses_card_numbers(run, command, tmp_path):
    path = tmp_path / "past.csv"
    path.write_text(HEADER + "t1,1700000000000,4242424242424242,m1,5.00,EUR\n", encoding="utf-8")
    said = only_complaint(run(command[0], path, *command[1:]), 2)
    assert "row 1, column `card_id`" in said
    assert "--tokenize card_id" in said
    assert "4242" not in said


@pytest.mark.usefixtures("no_feed")
@pytest.mark.parametrize(
    "command", [["feed"], ["train", "--out", "unused"], ["backtest", "--models", "unused"]], ids=lambda words: words[0]
)
def test_every_command_that_reads_a_file_refuses_unknown_entry_modes_if_scorers_do(run, command, tmp_path, monkeypatch):
    monkeypatch.setenv("FRAUD_REJECT_UNKNOWN_ENTRY_MODES", "true")
    path = tmp_path / "past.csv"
    header = HEADER.replace("\n", ",entry_mode\n")
    path.write_text(header + "t1,1700000000000,c1,m1,5.00,EUR,carrier pigeon\n", encoding="utf-8")
    said = only_complaint(run(command[0], path, *command[1:]), 2)
    assert "row 1, column `entry_mode`: an entry mode without a known meaning" in said
    assert "pigeon" not in said


@pytest.mark.usefixtures("no_feed")
def test_card_numbers_cannot_be_replaced_without_the_key(run, tmp_path):
    path = tmp_path / "past.csv"
    path.write_text(HEADER + "t1,1700000000000,4242424242424242,m1,5.00,EUR\n", encoding="utf-8")
    assert "FRAUD_TOKENIZER_KEY_DIR" in only_complaint(run("feed", path, "--tokenize", "card_id"), 2)


def test_a_label_is_sent_with_its_card_as_key(run, monkeypatch):
    sent = []

    class Producer:
        def produce(self, topic, value, key, partition, headers, on_delivery):
            sent.append((topic, key, json.loads(value)))

        def poll(self, timeout):
            return 0

        def flush(self, timeout):
            return 0

    monkeypatch.setattr("fraud_service.kafka.clients.require_connection", lambda _: None)
    monkeypatch.setattr("fraud_service.kafka.clients.producer", lambda *_: Producer())
    code, out, err = run(
        *("label", "t1", "--card", "c1", "--fraud", "--source", "customer", "--at", "2024-01-01T01:00:00+01:00")
    )
    assert (code, out, err) == (0, "sent: t1 is fraud\n", "")
    label = {"transaction_id": "t1", "card_id": "c1", "is_fraud": True, "labelled_at": 1_704_067_200_000}
    assert sent == [("payments.fraud-labels.v1", b"c1", label | {"source": "customer"})]


def test_training_on_too_few_frauds_is_one_line(run, tmp_path):
    pytest.importorskip("sklearn")
    run("simulate", tmp_path / "world.csv", *SMALL)
    said = only_complaint(run("train", tmp_path / "world.csv", "--out", tmp_path / "model"), 2)
    assert "known frauds in" in said
    assert not (tmp_path / "model" / "manifest.json").exists()


@pytest.mark.parametrize("command", [["train", "--out", "unused"], ["refit", "--bootstrap", "127.0.0.1:1"]])
def test_training_without_a_label_column_names_the_column_that_seems_to_be_it(run, command, tmp_path):
    pytest.importorskip("sklearn")
    path = tmp_path / "past.csv"
    path.write_text(HEADER.replace("\n", ",Class\n") + "t1,1700000000000,c1,m1,5.00,EUR,1\n", encoding="utf-8")
    said = only_complaint(run(command[0], path, *command[1:]), 2)
    assert f"{path}: no column is the label. `Class` seems to be" in said
    assert "--map Class=label" in said


def test_training_ends_with_its_answer_and_the_next_command(run, tmp_path, monkeypatch):
    fit = pytest.importorskip("fraud_service.training.fit")
    for choice in fit.CANDIDATE_PARAMETERS:
        monkeypatch.setitem(choice, "n_estimators", 10)
    world, out = tmp_path / "a world.parquet", tmp_path / "model"
    run("simulate", world, "--cards", 150, "--merchants", 80, "--days", 36)
    monkeypatch.setenv("FORCE_COLOR", "1")  # progress bars are for terminals
    code, said, progress = run("train", world, "--out", out, "--train-to", "2024-02-01")
    trained, judged, following = said.splitlines()
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert code == 0
    assert trained.startswith(f"trained {manifest['version']} on {manifest['training']['rows']:,} payments, ")
    assert judged.startswith(("on the last 5.5", "no figures on held-out days: known frauds are "))
    assert following == f"next: fraud-service backtest '{world}' --models {out} --from 2024-02-01"
    assert "30/30" in progress  # trees
    code, said, _ = run("train", world, "--out", out, "--json")
    found = json.loads(said)
    assert (code, found["out"], bool(found["held_out"])) == (0, str(out), not found["missing"])
    assert bool(found["metrics"]) is not found["missing"] == ""


def test_an_output_folder_that_cannot_be_written_is_one_line_before_training(run, tmp_path):
    pytest.importorskip("sklearn")
    run("simulate", tmp_path / "world.csv", *SMALL)
    said = only_complaint(run("train", tmp_path / "world.csv", "--out", tmp_path / "world.csv" / "model"), 2)
    assert f"--out {tmp_path / 'world.csv' / 'model'}" in said


def test_a_client_option_that_does_not_exist_is_one_line_without_secrets(run, monkeypatch):
    monkeypatch.setenv("FRAUD_KAFKA_CONFIG", json.dumps({"bogus.option": "1", "sasl.password": SECRET}))
    said = only_complaint(run("topics", "check"), 2)
    assert "bogus.option" in said
    assert SECRET not in said


def test_an_unreachable_cluster_is_one_line(run, monkeypatch):
    monkeypatch.setattr("fraud_service.kafka.clients.REACH_TIMEOUT_S", 0.3)
    said = only_complaint(run("topics", "check", "--bootstrap", "127.0.0.1:1"), 1)
    assert said.startswith("no Kafka broker answers at 127.0.0.1:1 (Connect to ")
    assert "FRAUD_BOOTSTRAP_SERVERS" in said


LOADING = """
import os, signal, sys
from importlib.abc import MetaPathFinder

_, verb, module = sys.argv

class Loading(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == module:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                for _ in range(1000):
                    pass
            except BaseException:
                raise ImportError("initialization failed")

sys.meta_path.insert(0, Loading())
from fraud_service.__main__ import main
sys.argv = ["fraud-service", verb]
main()
"""


def told_while_loading(verb, module):
    """Run a command that is told to stop when it begins to load a module; returns how it ended."""
    return subprocess.run(
        [sys.executable, "-c", LOADING, verb, module], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("verb", ["score", "learn"])
def test_sigterm_during_the_start_exits_0_even_if_a_module_being_imported_catches_exceptions(verb):
    ended = told_while_loading(verb, "fraud_service.service")
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("module", ["fraud_service.cli", "typer", "fraud_service.config.settings"])
@pytest.mark.parametrize(("verb", "code"), [("score", 0), ("learn", 0), ("tokenize", 0), ("train", -signal.SIGTERM)])
def test_sigterm_during_imports_exits_0_although_pid_1_ignores_unhandled_signals(verb, code, module):
    ended = told_while_loading(verb, module)
    assert ended.returncode == code, ended.stderr  # negative: the system ended it, nothing heard the signal


def test_every_command_that_runs_until_sigterm_handles_it_during_imports():
    until = {
        command.callback.__name__
        for command in service.app.registered_commands
        if "SIGTERM" in command.callback.__doc__
    }
    assert until == SERVICES


def test_the_limit_of_open_files_is_raised_as_far_as_the_system_allows():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        cli.raise_open_file_limit()
        allowed, still = resource.getrlimit(resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert allowed == (cli.OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, cli.OPEN_FILES))
    assert still == hard


@pytest.mark.parametrize("refusal", [ValueError("current limit exceeds maximum limit"), OSError(22, "invalid")])
def test_a_command_continues_if_the_system_refuses_a_higher_limit_of_open_files(monkeypatch, refusal):
    asked = []

    def refuse(_limit, both):
        asked.append(both)
        raise refusal

    monkeypatch.setattr(resource, "getrlimit", lambda _limit: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    cli.raise_open_file_limit()
    assert asked == [(cli.OPEN_FILES, resource.RLIM_INFINITY)]
