"""The values and ACLs that the operations pages give to copy are right."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = ["deploy", "sizing", "scale", "upgrade", "recover", "secure", "card-data", "verify"]


def section(page: str, title: str) -> str:
    return (DOCS / page).read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]


def example() -> dict:
    (values,) = [
        yaml.safe_load(block)
        for block in re.findall("```yaml\n(.*?)```", section("deploy.md", "Kubernetes"), re.DOTALL)
    ]
    return values


def strimzi_users() -> dict[str, dict]:
    users = yaml.safe_load_all((ROOT / "ops" / "strimzi-users.yaml").read_text())
    return {user["metadata"]["name"]: user for user in users}


def rights_of_the_table(*users: str) -> dict[tuple[str, str, str], set[str]]:
    found: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    rows = [
        line.strip("|").split("|") for line in section("secure.md", "Kafka ACLs").splitlines() if line.count("|") == 5
    ]
    for who, resource, names, operations in rows[2:]:
        if {user.strip() for user in who.split(",")} & set(users):
            kind = {"transactional id": "transactionalId"}.get(resource.strip(), resource.strip())
            for name in re.findall("`([^`]+)`", names):
                pattern = "prefix" if name.endswith("*") else "literal"
                found[kind, name.rstrip("*"), pattern] |= {operation.strip() for operation in operations.split(",")}
    return found


@pytest.mark.parametrize("component", ["scorer", "learner", "refit", "tokenizer", "topics", "test"])
def test_each_strimzi_user_has_the_rights_of_its_rows_in_the_table(component):
    acls = strimzi_users()[f"fraud-{component}"]["spec"]["authorization"]["acls"]
    granted = {
        (acl["resource"]["type"], acl["resource"]["name"], acl["resource"].get("patternType", "literal")): {
            *acl["operations"]
        }
        for acl in acls
    }
    assert len(granted) == len(acls)
    assert granted == rights_of_the_table(component)


def test_only_the_tokenizer_reads_the_raw_topics():
    readers = {
        name
        for name, user in strimzi_users().items()
        for acl in user["spec"]["authorization"]["acls"]
        if acl["resource"]["type"] == "topic" and "Read" in acl["operations"]
        and "payments.raw-transactions.v1".startswith(acl["resource"]["name"])
    }  # fmt: skip
    assert readers == {"fraud-tokenizer"}


def test_the_values_of_the_strimzi_example_are_values_of_the_chart():
    chart = ROOT / "helm" / "fraud-service" / "values.yaml"
    if not chart.is_file():
        pytest.skip("the chart is not in this tree")

    def leaves(values: dict, prefix: str = "") -> set[str]:
        return {
            leaf
            for name, value in values.items()
            for leaf in (leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}"})
        }

    assert leaves(example()) <= leaves(yaml.safe_load(chart.read_text()))
    named = {values["kafka"]["username"] for name, values in example().items() if "username" in values.get("kafka", {})}
    assert named == set(strimzi_users()) - {"fraud-tokenizer"}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_an_operations_page_leads_to_a_file_and_a_heading(page):
    text = (DOCS / f"{page}.md").read_text()
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", text):
        file = DOCS / (target or f"{page}.md")
        assert file.is_file(), target
        headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
        slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert not anchor or anchor in slugs, f"{target}#{anchor}"
