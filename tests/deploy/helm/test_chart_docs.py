from __future__ import annotations

import importlib.util
import sys
from typing import Any

import pytest
from helm_python.errors import HelmValuesError
from jsonschema import Draft7Validator
from support import chart

from fraud_service.config import settings

_spec = importlib.util.spec_from_file_location("chart_generate", chart.CHART.parent / "generate.py")
generate = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = generate
_spec.loader.exec_module(generate)


def test_readme_and_schema_are_generated_from_the_values() -> None:
    assert generate.differences() == [], "run `python helm/generate.py`"


def test_check_names_the_files_that_differ_and_writing_updates_them(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rules").mkdir()
    for name in ("values.yaml", "README.md.in", "rules/fraud-service.yaml"):
        (tmp_path / name).write_bytes((chart.CHART / name).read_bytes())
    monkeypatch.setattr(generate, "CHART", tmp_path)
    assert generate.main(["--check"]) == 1
    assert "helm/fraud-service/README.md differs" in capsys.readouterr().out
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0


def test_the_schema_is_valid_and_accepts_the_defaults() -> None:
    schema = chart.loaded().schema
    Draft7Validator.check_schema(schema)
    assert list(Draft7Validator(schema).iter_errors(chart.loaded().values)) == []


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"scorers": {}}, "scorers"),
        ({"scorer": {"replica": 2}}, "replica"),
        ({"scorer": {"replicas": 0}}, "replicas"),
        ({"image": {"digest": "latest"}}, "digest"),
        ({"kafka": {"bootstrapServers": "kafka"}}, "bootstrapServers"),
        ({"scheduling": {"nodeSelector": {"size": 3}}}, "size"),
    ],
)
def test_an_invalid_value_stops_the_installation(values: dict[str, Any], named: str) -> None:
    with pytest.raises(HelmValuesError, match=named):
        chart.render(values)


def test_the_schema_has_every_setting_of_the_service() -> None:
    own = {f"{settings.PREFIX}{name.upper()}" for name in generate.OWN}
    assert set(generate.settings_schema()) == set(settings.variables()) - own


def test_every_value_is_explained() -> None:
    rows = [line for line in (chart.CHART / "README.md").read_text().splitlines() if line.startswith("| `")]
    assert len(rows) > 50
    assert [row for row in rows if not row.split(" | ")[2].strip(" |")] == []


def test_a_value_without_a_comment_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"some keys below a\.b"):
        generate.values("a:\n  # One.\n  b:\n    # Two.\n    c: 1\n    d: 2\n")
