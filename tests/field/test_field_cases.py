"""Run each folder of ../shared/field as its user would, and check what its README calls right.

The folders lie beside the repository, not in it. A folder without a case here fails the tests.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.field_cases import DAY_2, FIELD, MODEL, assert_refused, backtest, case, needs_field
from support.loop import looped

from fraud_service.domain.records import decode_score
from fraud_service.training.history import History

INTEGER_IDS = "ids_int.csv", "ids_float.csv", "ids_float_nan.parquet"

pytestmark = needs_field


def test_every_folder_has_a_case():
    folders = {path.name for path in FIELD.iterdir() if path.is_dir() and path.name[:1] not in "._"}
    cases = {
        name
        for file in Path(__file__).parent.glob("test_*.py")
        for name in re.findall(r'^@case\("(.+)"\)', file.read_text(), re.MULTILINE)
    }
    assert folders - cases == set(), "a new folder needs a case"


@pytest.fixture
def rows_of(command, tmp_path):
    """Backtest a file that is right, and return a row for each transaction."""

    def rows(file: Path, *options: object, **variables: str) -> list[dict]:
        done = backtest(command, file, "--scores", tmp_path / "scores.parquet", *options, **variables)
        assert done.returncode == 0, done.stderr
        return pq.read_table(tmp_path / "scores.parquet").to_pylist()

    return rows


def test_the_full_files_are_the_history_that_they_vary(generated, rows_of):
    assert len(rows_of(generated / "own.csv", "--to", DAY_2)) == 59


# -- 01 to 04: times and labels ----------------------------------------------------------------------------------------


@case("01-times-in-seconds")
def test_times_in_seconds_are_refused_or_read_with_their_unit(folder, command, rows_of, generated):
    for file in (folder / "seconds.csv", generated / "time_epoch_s.csv"):
        expected = "row 1, column `timestamp`", "looks like seconds", "--time-unit s"
        assert_refused(backtest(command, file), file, *expected)
        assert_refused(command("feed", file), file, *expected)
        assert_refused(command("train", file, "--out", folder / "m"), file, *expected)
    first = rows_of(folder / "seconds.csv", "--time-unit", "s")[0]
    assert f"{first['timestamp']:%Y-%m-%d %H:%M:%S}" == "2024-03-01 00:00:00"


@case("01-times-in-seconds")
def test_a_message_with_its_time_in_seconds_is_a_dead_letter(folder, tmp_path):
    with looped(tmp_path) as loop:
        loop.raw((folder / "message.json").read_bytes(), b"c1")
        loop.tick()
        (letter,) = loop.on("dead_letters")
        assert letter.header["fraud-reason"] == "invalid_timestamp"
        assert "looks like seconds" in letter.header["fraud-detail"]
        assert loop.on("scores") == []


@case("02-one-row-in-seconds")
def test_one_row_in_seconds_is_refused_by_its_number(folder, command, generated):
    for file, row in ((folder / "one_row.csv", 1), (generated / "time_one_row_in_seconds.csv", 101)):
        expected = f"row {row}, column `timestamp`", "looks like seconds"
        for words in (("backtest", file, "--models", MODEL), ("train", file, "--out", "m"), ("feed", file)):
            assert_refused(command(*words), file, *expected)


@case("03-label-before-its-payment")
def test_a_label_from_before_its_payment_is_refused(folder, command, generated):
    for file, cause in (
        (folder / "labelled_at_seconds.csv", "looks like seconds"),
        (folder / "labelled_before.csv", "before its payment"),
        (generated / "labelled_at_s.csv", "looks like seconds"),
        (generated / "labelled_at_before.csv", "before its payment"),
    ):
        for words in (("backtest", file, "--models", MODEL), ("train", file, "--out", "m"), ("feed", file)):
            assert_refused(command(*words), file, "row 1, column `labelled_at`", cause)


@case("04-equal-labels-crash")
def test_payments_and_labels_of_equal_id_and_time_are_read_and_fraud_wins(folder, command, rows_of, tmp_path):
    labels = {
        "contradicting_duplicate": [True],
        "equal_label": [False, False],
        "labelled_at_date": [True, False, False],
    }
    assert {file.stem.removeprefix("crash_") for file in folder.glob("*.csv")} == set(labels)
    for name, expected in labels.items():
        file = folder / f"crash_{name}.csv"
        assert [row["is_fraud"] for row in rows_of(file)] == expected
        trained = command("train", file, "--out", tmp_path / "m")
        assert trained.returncode == 2
        assert "needs at least 20" in trained.stderr  # frauds


# -- 05, 24, 27, 28, 30: the same value in each format -----------------------------------------------------------------


@case("05-decimal-amounts")
def test_an_amount_is_the_same_from_csv_and_parquet(folder, rows_of, generated):
    assert [one.transaction.amount for one in History.open(folder / "decimal.parquet")][:1] == [51.8]
    assert list(History.open(folder / "decimal.csv")) == list(History.open(folder / "decimal.parquet"))
    assert rows_of(folder / "decimal.csv") == rows_of(folder / "decimal.parquet")
    amounts = [
        [one.transaction.amount for one in History.open(generated / name)] for name in ("own.csv", "decimal.parquet")
    ]
    assert amounts[0] == amounts[1]


@case("27-ids-of-csv-and-parquet")
def test_an_id_is_the_same_from_each_format_or_refused(folder, command, generated):
    assert [one.transaction.card_id for one in History.open(folder / "float_ids.csv")] == ["27"]
    cards = [[one.transaction.card_id for one in History.open(generated / name)] for name in INTEGER_IDS]
    assert cards[0] == cards[1] == cards[2]
    for file in (folder / "excel_ids.csv", generated / "ids_excel.csv"):
        assert_refused(backtest(command, file), file, "row 1, column `card_id`", "exponent", "as text")
    for file in (folder / "header_twice.csv", generated / "header_twice.csv"):
        for options in ((), ("--map", "amount=amount")):
            assert_refused(backtest(command, file, *options), file, "2 columns are named `amount`", "rename")


@case("28-entry-modes")
def test_spellings_of_entry_modes_mean_the_same(folder, command, tmp_path):
    lines = (folder / "modes.csv").read_text().splitlines()
    with looped(tmp_path) as loop:
        for line in lines[1:]:
            values = dict(zip(lines[0].split(","), line.split(","), strict=True))
            values.pop("is_fraud")
            loop.raw(json.dumps(values).encode(), values["card_id"].encode())
        loop.tick()
        assert [decode_score(one.value).features.is_card_not_present for one in loop.on("scores")] == [1.0] * 5
    unknown = tmp_path / "unknown.csv"
    unknown.write_text((folder / "modes.csv").read_text().replace("E-Commerce", "by pigeon"))
    done = backtest(command, unknown, "--scores", tmp_path / "scores.parquet")
    assert done.returncode == 0
    assert "row 1, column `entry_mode`: an entry mode without a known meaning, in 1 of 5 rows" in done.stderr
    assert_refused(backtest(command, unknown, FRAUD_REJECT_UNKNOWN_ENTRY_MODES="true"), unknown, "row 1")


@case("30-places")
def test_the_point_0_0_and_half_a_place_are_no_place(folder, tmp_path, generated):
    first = json.loads((folder / "m.jsonl").read_text())
    lone = {name: value for name, value in first.items() if name != "longitude"}
    berlin = {"latitude": 52.5, "longitude": 13.4}
    messages = [first, first | berlin, lone | {"latitude": 48.1}, first | {"country": "", "device_id": ""}]
    with looped(tmp_path) as loop:
        for number, message in enumerate(messages):
            moment = {"transaction_id": f"t{number}", "timestamp": f"2026-11-30T1{number}:00:00Z"}
            loop.raw(json.dumps(message | moment).encode(), b"c1")
        loop.tick()
        rows = [decode_score(one.value).features for one in loop.on("scores")]
        assert [(row.distance_km, row.speed_kmh, row.is_new_country, row.is_new_device) for row in rows] == [
            (0, 0, 0, 0)
        ] * 4
        assert loop.on("dead_letters") == []
    places = {
        (one.transaction.latitude, one.transaction.longitude) for one in History.open(generated / "null_island.jsonl")
    }
    assert places == {(None, None), (52.5, 13.4)}
    devices = {
        (one.transaction.device_id, one.transaction.country) for one in History.open(generated / "empty_device.jsonl")
    }
    assert devices == {(None, None), ("d1", "DE")}
    assert {one.transaction.country for one in History.open(generated / "empty_text_country.parquet")} == {None, "DE"}


# -- 06, 07: card numbers ----------------------------------------------------------------------------------------------

SPARKOV = (
    "--map", "trans_num=transaction_id", "--map", "trans_date_trans_time=timestamp", "--map", "cc_num=card_id",
    "--map", "merchant=merchant_id", "--map", "amt=amount", "--set", "currency=USD",
)  # fmt: skip


@case("06-card-numbers-fed")
def test_no_command_takes_card_numbers_of_a_file(folder, command, rows_of, tmp_path, generated):
    for file in (folder / "sparkov_like.csv", generated / "sparkov_z.csv"):
        for words in (("feed", file), ("backtest", file, "--models", MODEL), ("train", file, "--out", "m")):
            done = command(*words, *SPARKOV)
            assert_refused(done, file, "row 1, column `cc_num`", "card number", "--tokenize cc_num")
            assert "400000" not in done.stdout + done.stderr
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "k1").write_text("ab" * 32)
    options = (*SPARKOV, "--tokenize", "cc_num")
    rows = rows_of(folder / "sparkov_like.csv", *options, FRAUD_TOKENIZER_KEY_DIR=str(keys))
    assert len(rows) == len((folder / "sparkov_like.csv").read_text().splitlines()) - 1


@case("07-long-numeric-ids")
def test_long_ids_that_scorers_would_refuse_are_refused_with_the_setting(folder, command, rows_of, generated):
    file = folder / "merchants_19_digits.csv"
    expected = "row 1, column `merchant_id`", "in 2 of 2 rows", "FRAUD_REJECT_PAN=false"
    assert_refused(command("feed", file), file, *expected)
    assert_refused(backtest(command, file), file, *expected)
    assert len(rows_of(file, FRAUD_REJECT_PAN="false")) == 2
    file = generated / "tabformer_clean.csv"
    options = ("--map", "id=transaction_id", "--map", "User=card_id", "--map", "merchant=merchant_id")
    done = command("feed", file, *options, "--set", "currency=USD")
    assert_refused(done, file, "column `merchant`", "of 3,000 rows", "FRAUD_REJECT_PAN=false")


# -- 10: labels --------------------------------------------------------------------------------------------------------


@case("10-no-label-column")
def test_a_label_column_of_another_name_is_named_with_the_option_that_reads_it(folder, command, tmp_path, rows_of):
    file = folder / "no_label.csv"
    for words in (("train", file, "--out", tmp_path / "m"), ("refit", file)):
        assert_refused(command(*words), file, "no column is the label. `Class` seems to be", "--map Class=label")
    done = backtest(command, file)
    assert done.returncode == 1
    assert "nothing was measured: the file has no label" in done.stderr
    assert "--map Class=label" in done.stderr
    (row,) = rows_of(file, "--map", "Class=label")
    assert row["is_fraud"]


# -- 12: ids -----------------------------------------------------------------------------------------------------------


@case("12-authorisation-and-capture")
def test_a_capture_under_the_id_of_its_authorisation_is_scored_by_itself(folder, command, tmp_path, generated):
    with looped(tmp_path) as loop:
        for line in (folder / "messages.jsonl").read_bytes().splitlines():
            loop.raw(line, b"c1")
        loop.tick()
        first, second = (decode_score(one.value) for one in loop.on("scores"))
        assert (first.amount, second.amount) == (1.0, 900.0)
        assert not second.is_duplicate
        assert second.features.amount == 900.0
        assert second.features.count_7d > first.features.count_7d  # both are in the profile
        assert loop.scorer_metrics.reused._value.get() == 1
    done = backtest(command, generated / "auth_capture.csv", "--no-online")
    assert done.returncode == 0
    assert "600" in done.stdout


# -- 22: chart ---------------------------------------------------------------------------------------------------------


@case("22-chart")
@pytest.mark.slow  # `make test` does not install Helm
def test_the_chart_takes_what_clusters_with_policies_of_their_own_need(folder):
    from support.chart import ci, render  # noqa: PLC0415 - `make test` collects this file too

    values = {file.stem: ci(file) for file in folder.glob("*.yaml")}
    assert set(values) == {"ipv6", "mesh", "oauth", "openshift"}
    rendered = {name: render(value) for name, value in values.items()}
    pods = {
        name: [one["spec"]["template"] for one in manifests if one["kind"] in {"StatefulSet", "Deployment"}]
        for name, manifests in rendered.items()
    }
    assert all(len(templates) == 2 for templates in pods.values())
    (settings,) = [one["data"] for one in rendered["ipv6"] if "FRAUD_BOOTSTRAP_SERVERS" in one.get("data", {})]
    assert settings["FRAUD_BOOTSTRAP_SERVERS"] == "[fd00::1]:9092"
    for pod in pods["mesh"]:
        assert pod["metadata"]["annotations"]["sidecar.istio.io/inject"] == "false"
    for pod in pods["openshift"]:
        assert {"runAsUser", "fsGroup"}.isdisjoint(pod["spec"]["securityContext"])
    for pod in pods["oauth"]:
        (secrets,) = [one["projected"]["sources"] for one in pod["spec"]["volumes"] if one["name"] == "kafka-secrets"]
        item = {"key": "password", "path": "sasl.oauthbearer.client.secret"}
        assert secrets == [{"secret": {"items": [item], "name": "s"}}]


# -- 08, 24, 25: shapes of files -----------------------------------------------------------------------------------


@case("08-quoted-line-breaks")
def test_line_breaks_in_quotes_are_read_whatever_the_size_of_the_file(folder, rows_of, generated, tmp_path):
    program = (
        "from make_files import *; write('large.csv', H, [[f'{p[0]}-{k}', *p[1:]] for k in range(12)"
        " for p in plain(B, merchant_id=lambda m: f'Shop {m}\\nLane 5')])"
    )
    subprocess.run([sys.executable, "-c", program], cwd=generated, check=True, timeout=60)
    large = (generated / "large.csv").rename(tmp_path / "large.csv")
    for file, count in ((large, 12 * 59), (generated / "quoted_newline.csv", 59)):
        assert len(rows_of(file, "--to", DAY_2, "--no-online")) == count
        assert next(iter(History.open(file))).transaction.merchant_id == "Shop m07 Lane 5"


@case("10-no-label-column")
def test_a_file_without_a_label_column_names_the_column_that_may_be_it(folder, command, tmp_path, generated):
    file = folder / "no_label.csv"
    assert_refused(command("train", file, "--out", tmp_path / "m"), file, "Class", "--map Class=")
    tested = backtest(command, file)
    assert "--map Class=" in tested.stderr
    file = generated / "no_label_column.csv"
    assert_refused(command("train", file, "--out", tmp_path / "m"), file, "label")


@case("24-parquet-shapes")
def test_folders_of_parts_and_ids_of_bytes_and_decimals_are_read(folder, generated, rows_of):
    own = list(History.open(generated / "own.csv"))
    for name in ("spark.parquet", "binary_ids.parquet"):
        assert [one.transaction.card_id for one in History.open(generated / name)] == [
            one.transaction.card_id for one in own
        ]
    cards = [one.transaction.card_id for one in History.open(generated / "ids_decimal.parquet")]
    assert cards == [str(2**60 + int(one.transaction.card_id[1:])) for one in own]
    for name in ("spark.parquet", "binary_ids.parquet", "ids_decimal.parquet"):
        assert len(rows_of(generated / name, "--to", DAY_2, "--no-online")) == 59


@case("25-csv-shapes")
def test_other_delimiters_paddings_cases_and_compressions_are_read(folder, command, rows_of):
    for name in ("padded.csv", "upper.csv"):
        (event,) = History.open(folder / name)
        assert (event.transaction.transaction_id, event.transaction.amount, event.is_fraud) == ("t1", 20.5, False)
        assert event.transaction.merchant_id == "m1"
        assert len(rows_of(folder / name)) == 1
    file = folder / "semicolon.csv"
    assert_refused(backtest(command, file), file, "row 1, column `amount`", "--decimal ,")
    assert len(rows_of(file, "--decimal", ",")) == 1
    assert list(History.open(folder / "own.csv.gz")) == list(History.open(folder / "upper.csv"))
    assert len(rows_of(folder / "own.csv.gz")) == 1
