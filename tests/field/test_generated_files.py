"""Each shape that the generators of ../shared/field write is read, or refused with a remedy."""

from __future__ import annotations

from support.field_cases import DAY_2, backtest, case, needs_field

pytestmark = needs_field

REMEDIES = {
    "--map COLUMN=FIELD": "banksim.csv capital.txt creditcard.csv handbook.csv ieee.csv nested.jsonl nested.parquet "
    "no_header.csv paysim.csv sparkov.csv sparkov_z.csv tabformer.csv tabformer_clean.csv",
    "--time-unit ": "labelled_at_s.csv seconds_int32.parquet time_epoch_ns.csv time_epoch_s.csv "
    "time_epoch_s_fraction.csv time_epoch_us.csv time_mixed_s_ms.csv time_one_row_in_seconds.csv",
    "--time-zone UTC": "int96.parquet naive_local.parquet text_times.parquet time_date_only.csv time_naive.csv "
    "time_naive_t.csv",
    "--time-format": "time_compact.csv time_de_date.csv time_offset_short.csv time_space_utc.csv time_us_date.csv",
    "--time-unit d --time-origin 1899-12-30": "time_excel_serial.csv",
    "--skip-invalid": "nan.jsonl odd_merchants.csv one_no_amount.csv one_no_merchant.csv one_refund.csv "
    "one_refund_parens.csv",
    "write one object a line": "array.jsonl own.json pretty.jsonl",
    "a refund, which is no payment": "all_refunds.csv",
    "not an ISO 4217 code such as EUR": "currency_lower.csv currency_numeric.csv",
    "nor an integer": "ids_float_2_60.parquet",
    "--fraud-value": "label_minus1.csv label_words.csv",
    "--label-delay": "labelled_at_before.csv",
    "--decimal ,": "semicolon_decimal_comma.csv",
    "--encoding latin-1": "latin1.csv",
    "rename all but one": "header_twice.csv",
    "export the column as text": "ids_excel.csv",
    "no transaction is left": "header_only.csv",
}
REMEDY_OF = {name: remedy for remedy, names in REMEDIES.items() for name in names.split()}


@case("gen")
def test_each_shape_of_the_generators_is_read_or_refused_with_a_remedy(folder, command, generated):
    files = sorted(file for file in generated.iterdir() if file.suffix != ".py" and file.name[:1] != "_")
    assert len(files) > 100
    for file in files:
        done = backtest(command, file, "--no-online", "--to", DAY_2)
        remedy = REMEDY_OF.get(file.name)
        has_figures = "nothing was measured" not in done.stderr  # without labels, it exits 1
        assert done.returncode == (2 if remedy else 0 if has_figures else 1), f"{file.name}: {done.stderr}"
        assert "Traceback" not in done.stderr
        assert remedy is None or remedy in done.stderr, f"{file.name}: {done.stderr}"
