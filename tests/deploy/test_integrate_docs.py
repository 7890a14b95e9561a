"""The programs of docs/integrate.md send what the service reads."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
from confluent_kafka import Producer

from fraud_service.domain.events import decode_transaction
from fraud_service.kafka.partitioner import murmur2_partition

PAGE = (Path(__file__).parents[2] / "docs" / "integrate.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("language", ["java", "go"])
def test_the_payment_of_a_program_is_a_transaction(language):
    (payment,) = [
        text for block in blocks(language) for text in re.findall(r"\{\"transaction_id\".*?\}", block, re.DOTALL)
    ]
    assert decode_transaction(payment.encode()).card_id == "card-000001"


def test_the_python_producer_has_the_partitioner_and_options_that_librdkafka_knows():
    tree = ast.parse(blocks("python")[0])
    dicts = [ast.literal_eval(node) for node in ast.walk(tree) if isinstance(node, ast.Dict)]
    (options,) = [found for found in dicts if "partitioner" in found]
    (payment,) = [found for found in dicts if "transaction_id" in found]
    assert options["partitioner"] == "murmur2"
    Producer(options)
    assert payment.keys() >= {"transaction_id", "timestamp", "card_id", "merchant_id", "amount", "currency"}


def test_the_python_programs_compile():
    for block in blocks("python"):
        compile(block, "integrate.md", "exec")


def test_the_test_vectors_of_the_page_and_of_asyncapi_are_those_of_the_partitioner():
    rows = re.findall(r"^\| `([^`]+)` \| (\d+) \| (\d+) \|$", PAGE, re.MULTILINE)
    assert len(rows) >= 5
    for key, of_4, of_12 in rows:
        assert (murmur2_partition(key.encode(), 4), murmur2_partition(key.encode(), 12)) == (int(of_4), int(of_12))
    channels = json.loads((Path(__file__).parents[2] / "docs" / "asyncapi.json").read_text())["channels"]
    for role in ("transactions", "labels"):
        vectors = channels[role]["x-partition-test-vectors"]
        assert [(one["key"], str(one["of-4"]), str(one["of-12"])) for one in vectors] == rows
