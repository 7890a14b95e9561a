"""Test that the example services continue after any record on the alerts topic, and escape its text."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from support.bad_alerts import BAD_ALERTS, BAD_FOR_CASES, ESCAPE, HEADERS, changed, of

pytestmark = pytest.mark.attack

EXAMPLES = Path(__file__).parents[2] / "examples"


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


class Received:
    """A message as the client returns it."""

    def __init__(self, value, headers, offset: int = 0, key: bytes | None = b"c-bad") -> None:
        self._value, self._headers, self._offset, self._key = value, headers, offset, key

    def value(self):
        return self._value

    def headers(self):
        return self._headers

    def key(self):
        return self._key

    def error(self):
        return None

    def partition(self) -> int:
        return 3

    def offset(self) -> int:
        return self._offset


@pytest.fixture
def cases(tmp_path):
    return module("cases").Cases(tmp_path / "cases.sqlite")


class Client:
    """Records the freezer's messages and counts its commits."""

    def __init__(self) -> None:
        self.sent, self.committed = [], 0

    def produce(self, topic, key, value, headers) -> None:
        self.sent.append(key)

    def commit_transaction(self, timeout) -> None:
        self.committed += 1

    def __getattr__(self, name):
        return lambda *_: None


@pytest.fixture
def freezer():
    loaded = module("freeze_cards")
    made = object.__new__(loaded.Freezer)
    made._frozen, made._frozen_topic, made._skipped = set(), "frozen", loaded.Skipped()
    made._producer, made._consumer = Client(), Client()
    return made


@pytest.mark.parametrize("name", [*BAD_ALERTS, *BAD_FOR_CASES])
def test_cases_skips_and_counts_an_invalid_alert(cases, capsys, name):
    value, headers = (BAD_ALERTS | BAD_FOR_CASES)[name]
    cases.take(Received(value, headers, 41))
    cases.take(Received(changed(), HEADERS, 42))
    assert [row[1:3] for row in cases.open()] == [("c-bad", 1)]
    assert (cases.offsets(), cases.skipped.count) == ({3: 43}, 1)
    shown = capsys.readouterr().err
    assert "partition 3 offset 41" in shown
    assert shown.strip().isprintable()


@pytest.mark.parametrize("name", BAD_ALERTS)
def test_the_freezer_skips_an_invalid_alert_and_handles_the_others(freezer, capsys, name):
    value, headers = BAD_ALERTS[name]
    other = of(card_id="c-other")
    freezer._handle([Received(value, headers, 41), Received(changed(), HEADERS, 42), Received(other, HEADERS, 43)])
    assert freezer._producer.sent == ["c-bad", "c-other"]
    assert (freezer._producer.committed, freezer._skipped.count) == (1, 1)
    shown = capsys.readouterr().err
    assert "partition 3 offset 41" in shown
    assert shown.strip().isprintable()


def test_a_flood_of_invalid_alerts_logs_few_lines_and_counts_all(cases, capsys):
    for offset in range(1000):
        cases.take(Received(b"{", HEADERS, offset))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert "skipped 512 so far" in lines[-1]
    assert cases.skipped.count == 1000


def test_cases_accepts_control_characters_and_lists_them_escaped(tmp_path, capsys, monkeypatch):
    loaded = module("cases")
    loaded.Cases(tmp_path / "cases.sqlite").take(Received(of(card_id=ESCAPE, transaction_id="t\n"), HEADERS))
    monkeypatch.setattr("sys.argv", ["cases.py", "--file", str(tmp_path / "cases.sqlite"), "list"])
    loaded.main()
    (line,) = capsys.readouterr().out.splitlines()
    assert line.split("\t")[1] == r"\x1b]0;owned\x07\u202e"


def test_the_freezer_survives_foreign_records_on_its_own_topic(freezer, monkeypatch):
    records = [Received(b"{}", None, 0, None), Received(b"{}", None, 1, b"\xff"), Received(b"{}", None, 2, b"c-1")]

    class Reader(Client):
        def list_topics(self, *_):
            return SimpleNamespace(topics={"frozen": SimpleNamespace(partitions=[0])})

        def get_watermark_offsets(self, *_):
            return 0, len(records)

        def position(self, _):
            return [SimpleNamespace(partition=0, offset=self.committed)]

        def consume(self, *_, **__):
            self.committed = len(records)
            return records

    freezer._connection = {}
    monkeypatch.setitem(type(freezer)._read_frozen.__globals__, "Consumer", lambda _: Reader())
    assert "c-1" in freezer._read_frozen()
