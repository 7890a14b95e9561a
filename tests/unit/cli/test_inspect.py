"""`inspect` prints a proposal for people and for programs, and saves the mapping."""

from __future__ import annotations

import json
import shlex

import pytest
from support.public_sets import ROWS, card_number, write_set

from fraud_service.training.mapping import load_mapping


@pytest.mark.parametrize("name", ROWS)
def test_a_well_known_data_set_is_named_with_the_commands_that_come_next(run, tmp_path, name):
    path = write_set(name, tmp_path)
    code, out, err = run("inspect", path)
    assert f": --mapping {name}\n" in out
    assert (code, err) == (0, "")
    commands = [shlex.split(line) for line in out.partition("\nNext\n")[2].splitlines()]
    assert [command[1] for command in commands] == ["backtest", "train", "backtest", "feed"]
    assert all(command[2:5] == [str(path), "--mapping", name] for command in commands)


def test_an_unknown_file_gets_a_mapping_to_save(run, tmp_path):
    path = tmp_path / "payments.csv"
    rows = "".join(f"{n},2024-03-0{1 + n % 9} 10:00,c{n % 2},Shop,12.5,{int(n < 2)}\n" for n in range(60))
    path.write_text(f"txn,when,customer,shop,amt,fraud\n{rows}", encoding="utf-8")
    code, out, _ = run("inspect", path)
    assert (code, out.count("--save mapping.toml")) == (0, 1)
    saved = tmp_path / "bank.toml"
    code, out, _ = run("inspect", path, "--map", "when=timestamp", "--set", "currency=SEK", "--save", saved)
    assert code == 0
    assert f"--mapping {saved} " in out
    assert "--save" not in out
    mapping = load_mapping(str(saved))
    assert (mapping.fields["timestamp"], mapping.constants) == ("when", {"currency": "SEK"})
    code, out, _ = run("inspect", path, "--mapping", saved)
    assert code == 0
    assert f"--mapping {saved} " in out


def test_programs_get_json(run, tmp_path):
    code, out, _ = run("inspect", write_set("handbook", tmp_path), "--json", "--rows", "50")
    found = json.loads(out)
    assert (code, found["rows"], found["is_whole_file"], found["looks_like"]) == (0, 50, False, "handbook")
    assert found["mapping"]["fields"]["amount"] == "TX_AMOUNT"
    assert found["leaks"].keys() == {"TX_FRAUD_SCENARIO"}


def test_the_part_of_a_large_file_is_said(run, tmp_path):
    path = write_set("handbook", tmp_path)
    assert "looked at 400 rows, all of its rows" in run("inspect", path)[1]
    assert "looked at 50 rows, its first rows" in run("inspect", path, "--rows", "50")[1]


def test_no_card_number_is_printed_or_saved(run, tmp_path):
    path, saved = write_set("sparkov", tmp_path), tmp_path / "mapping.toml"
    outputs = [
        *run("inspect", path, "--save", saved)[1:],
        *run("inspect", path, "--json")[1:],
        saved.read_text("utf-8"),
    ]
    assert not [n for n in range(12) for output in outputs if card_number(n) in output]
    assert "`cc_num`: card numbers in 400 rows: --tokenize cc_num" in outputs[0]


def test_a_file_of_which_no_row_can_be_read_fails(run, tmp_path):
    path = tmp_path / "payments.csv"
    path.write_text("colour,size\nred,1\n", encoding="utf-8")
    code, out, _ = run("inspect", path)
    assert code == 1
    assert "no column for `timestamp`, `card_id`, `amount`" in out
    assert out.rstrip().endswith("Name the columns with --map COLUMN=FIELD, and inspect the file again")


def test_a_mapping_is_saved_only_as_toml(run, tmp_path):
    code, _, err = run("inspect", write_set("handbook", tmp_path), "--save", tmp_path / "mapping.yaml")
    assert (code, "the name of a mapping ends in .toml" in err) == (2, True)
