"""The examples in the docstrings of the pure packages run, and their results are right."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

from fraud_service import domain, security

MIN_EXAMPLES = 10
MODULES = sorted(
    module.name
    for package in (domain, security)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_are_right(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_the_pure_packages_have_at_least_ten_examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [test.name for name in MODULES for test in finder.find(importlib.import_module(name)) if test.examples]
    assert len(found) >= MIN_EXAMPLES, found
