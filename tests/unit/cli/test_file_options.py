"""Options of commands that read a file: each overrides one entry of the mapping."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from fraud_service.cli import data, models
from fraud_service.cli.file_options import FileOptions, reads_file
from fraud_service.domain.errors import ConfigurationError
from fraud_service.training.mapping import FileMapping


@pytest.fixture
def mapping(tmp_path):
    """Write a mapping that sets several entries."""
    path = tmp_path / "bank.toml"
    path.write_text(
        """
        time_unit = "s"
        time_zone = "UTC"
        [fields]
        card_id = "customer"
        amount = "value"
        [constants]
        currency = "USD"
        country = "US"
        """,
        encoding="utf-8",
    )
    return str(path)


def test_without_options_the_mapping_is_that_of_the_file(mapping):
    assert FileOptions().file_mapping() == FileMapping()
    assert FileOptions(mapping=mapping).file_mapping() == FileMapping(
        time_unit="s",
        time_zone="UTC",
        fields={"card_id": "customer", "amount": "value"},
        constants={"currency": "USD", "country": "US"},
    )


def test_an_option_overrides_its_entry_and_keeps_the_others(mapping):
    options = FileOptions(
        mapping=mapping,
        time_unit="h",
        time_origin="2026-01-31T00:00:00Z",
        maps=["account=card_id", "land=country"],
        sets=["amount=5"],
    )
    assert options.file_mapping() == FileMapping(
        time_unit="h",
        time_origin=datetime(2026, 1, 31, tzinfo=UTC),
        time_zone="UTC",
        fields={"card_id": "account", "country": "land"},
        constants={"currency": "USD", "amount": "5"},
    )


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        ({"maps": ["a=card_id", "b=card_id"]}, "--map b=card_id: another --map already provides the field `card_id`"),
        ({"maps": ["card_id"]}, "--map card_id: write NAME=VALUE"),
        ({"time_origin": "noon"}, "--time-origin noon: write a time such as"),
        ({"time_origin": "2026-01-31"}, "--time-origin 2026-01-31 00:00:00: it has no offset"),
        ({"time_unit": "weeks"}, "--time-unit weeks: write one of"),
    ],
)
def test_an_option_that_cannot_work_is_named(entries, complaint):
    with pytest.raises(ConfigurationError, match=complaint):
        FileOptions(**entries).file_mapping()


def test_every_option_of_a_mapping_reaches_it():
    options = FileOptions(
        delimiter="tab",
        decimal=",",
        encoding="latin-1",
        time_format="%d.%m.%Y",
        fraud_values=["Fraud", "Chargeback"],
        number_rows=True,
    )
    assert options.file_mapping() == FileMapping(
        delimiter="tab",
        decimal=",",
        encoding="latin-1",
        time_format="%d.%m.%Y",
        fraud_values=("Fraud", "Chargeback"),
        number_rows=True,
    )


@pytest.mark.parametrize("command", [data.feed, models.train, models.backtest, models.refit])
def test_commands_that_read_a_file_have_its_options(command):
    app = typer.Typer()
    app.command()(command)
    said = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output
    assert "How the file is read" in said
    assert all(option in said for option in ("--mapping", "--map", "--delimiter", "--time-origin", "--skip-invalid"))


HEADER = "transaction_id,timestamp,card_id,merchant_id,amount,currency\n"


@pytest.fixture
def count(tmp_path, monkeypatch):
    """Run a command that prints the number of rows of a file with one invalid row; gives its result."""
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"t{n},170000000000{n},c1,m1,{'free' if n == 2 else 5},EUR\n" for n in range(5))
    (tmp_path / "past.csv").write_text(HEADER + rows, encoding="utf-8")

    @reads_file
    def command(file: Path, reading: FileOptions, fails: bool = False) -> None:
        typer.echo(len(reading.open(file)))
        if fails:
            raise typer.Exit(1)

    app = typer.Typer()
    app.command()(command)
    return lambda *arguments: CliRunner().invoke(app, ["past.csv", *arguments])


def test_skipped_rows_are_saved_and_the_command_says_so_at_its_end(count, tmp_path):
    result = count("--skip-invalid")
    assert result.stdout == "4\n"
    assert result.stderr.startswith("skipped 1 of 5 rows: 1 × `amount`: not an amount from 0 to 1e+13.")
    assert result.stderr.endswith("They are in past.csv.skipped.csv\n")
    assert (tmp_path / "past.csv.skipped.csv").read_text(encoding="utf-8").splitlines()[1].endswith(",free,EUR")
    result = count("--skip-invalid", "--skipped", "other.csv", "--fails")
    assert (result.exit_code, result.stderr.endswith("They are in other.csv\n")) == (1, True)
    assert (tmp_path / "other.csv").exists()


def test_a_text_for_fraud_that_no_label_has_is_said(tmp_path, capsys):
    path = tmp_path / "past.csv"
    path.write_text(f"{HEADER.strip()},label\nt1,1700000000000,c1,m1,5,EUR,Chargeback\n", encoding="utf-8")
    FileOptions(fraud_values=["Charge back"]).open(path)
    assert "no label is 'Charge back', so every label counts as legitimate" in capsys.readouterr().err
    assert FileOptions(fraud_values=["chargeback"]).open(path).has_fraud
    assert capsys.readouterr().err == ""


def test_without_the_option_an_invalid_row_stops_the_command_and_a_file_for_skipped_rows_is_refused(count):
    assert "row 3, column `amount`" in str(count().exception)
    assert "--skipped other.csv: only --skip-invalid skips rows: add it" in str(
        count("--skipped", "other.csv").exception
    )


def test_commands_accept_the_clock_skew_of_scorers_but_no_payment_of_the_future(tmp_path, monkeypatch):
    monkeypatch.setenv("FRAUD_MAX_CLOCK_SKEW", "1h")
    path = tmp_path / "past.csv"
    for minutes in (30, 90):
        moment = int(time.time() + minutes * 60) * 1000
        path.write_text(
            f"transaction_id,timestamp,card_id,merchant_id,amount,currency\nt1,{moment},c1,m1,5,EUR\n", encoding="utf-8"
        )
        if minutes < 60:
            assert len(FileOptions().open(path)) == 1
    with pytest.raises(ConfigurationError, match="row 1, column `timestamp`: the payment is in the future"):
        FileOptions().open(path)


def test_the_arguments_of_a_reading_give_the_same_reading_again():
    given = FileOptions(mapping="map.toml", maps=["a b=card_id"], delimiter=";", number_rows=True, skip_invalid=True)
    assert given.arguments() == [
        "--mapping", "map.toml", "--map", "a b=card_id", "--delimiter", ";", "--number-rows", "--skip-invalid"
    ]  # fmt: skip
    assert FileOptions().arguments() == []


@pytest.mark.parametrize("output", ["past.csv", "./past.csv"])
def test_skipped_rows_never_replace_the_file_that_is_read(tmp_path, monkeypatch, output):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "past.csv").write_text("transaction_id\n", encoding="utf-8")
    for read in (FileOptions.open, lambda given, file: given.open_labels(file, None)):
        with pytest.raises(ConfigurationError, match="the command reads"):
            read(FileOptions(skip_invalid=True, skipped=Path(output)), tmp_path / "past.csv")
    assert (tmp_path / "past.csv").read_text(encoding="utf-8") == "transaction_id\n"


def test_labels_refuse_row_numbers_in_the_place_of_ids(tmp_path):
    with pytest.raises(ConfigurationError, match="--number-rows: a label needs the id"):
        FileOptions(number_rows=True).open_labels(tmp_path / "labels.csv", None)
