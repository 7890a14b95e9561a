"""Who may import what: the boundaries that keep the core pure and a scorer's pod small."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from support.scheduling import INDEPENDENT

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "fraud_service"
DOMAIN = PACKAGE / "domain"
IMPURE = {
    "asyncio",
    "http",
    "io",
    "logging",
    "multiprocessing",
    "os",
    "pathlib",
    "pickle",
    "random",
    "secrets",
    "shutil",
    "signal",
    "socket",
    "sqlite3",
    "subprocess",
    "sys",
    "tempfile",
    "threading",
    "time",
    "urllib",
}
PURE = (sys.stdlib_module_names - IMPURE) | {"msgspec", "fraud_service"}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def statements(node: ast.AST, *, functions: bool) -> list[ast.AST]:
    """Return what is executed within a node: without type checking, and without functions unless asked for."""
    found: list[ast.AST] = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not functions:
            continue
        inner: list[ast.AST] = [child]
        if is_for_types_only(child):
            inner = list(child.orelse)  # type: ignore[attr-defined]
        for one in inner:
            found += [one, *statements(one, functions=functions)]
    return found


def imports(module: str, *, functions: bool = True) -> set[str]:
    """Return the full names that a module imports; `from a import b` counts as a and as a.b."""
    path = FILES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found: set[str] = set()
    for node in statements(ast.parse(path.read_text(encoding="utf-8")), functions=functions):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            origin = ".".join(filter(None, (base, node.module)))
            found.update([origin, *(f"{origin}.{alias.name}" for alias in node.names)])
    return found


def roots(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def is_within(module: str, allowed: tuple[str, ...]) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in allowed)


def closure(module: str) -> set[str]:
    """Return our modules that are loaded when this one is, and what they import from elsewhere."""
    reached: set[str] = set()
    waiting = [module]
    while waiting:
        current = waiting.pop()
        if current in reached:
            continue
        reached.add(current)
        if current in FILES:
            # Importing a module loads the packages around it first.
            parents = {current.rsplit(".", depth)[0] for depth in range(1, current.count(".") + 1)}
            waiting += parents | imports(current, functions=False)
    return reached


CONTRACTS = {
    contract["type"]: contract
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
}
TOP = {name.split(".")[1] for name in FILES if "." in name}  # packages, and the modules beside them


def test_the_layers_that_make_lint_checks_name_every_package_once():
    layers = CONTRACTS["layers"]
    named = [name.strip() for line in layers["layers"] for name in re.split("[|:]", line)]
    assert sorted(named) == sorted(TOP)
    assert layers["exhaustive"]


def test_no_contract_has_an_exception():
    options = {option for contract in CONTRACTS.values() for option in contract}
    assert options.isdisjoint({"ignore_imports", "exhaustive_ignores"})
    assert CONTRACTS["acyclic_siblings"]["ancestors"] == ["fraud_service.*"]


def test_every_package_but_the_runtime_is_forbidden_to_import_quix():
    packages = {name for name in TOP if FILES[f"fraud_service.{name}"].name == "__init__.py"}
    forbidden = {name.removeprefix("fraud_service.") for name in CONTRACTS["forbidden"]["source_modules"]}
    assert packages - forbidden == {"runtime"}


@pytest.mark.parametrize("module", [name for name in FILES if is_within(name, ("fraud_service.domain",))])
def test_the_domain_imports_only_itself_and_pure_libraries(module):
    names = imports(module)
    assert roots(names) <= PURE
    ours = {name for name in names if name.startswith("fraud_service")}
    assert all(is_within(name, ("fraud_service.domain", "fraud_service.domain.errors")) for name in ours)


PURE_VERIFICATION = (
    "report",
    "matching",
    "decisions",
    "comparison",
    "snapshot_rebuild",
)


@pytest.mark.parametrize("module", PURE_VERIFICATION)
def test_pure_verification_modules_import_only_the_domain(module):
    ours = {name for name in imports(f"fraud_service.verification.{module}") if name.startswith("fraud_service")}
    pure = ("fraud_service.domain", *(f"fraud_service.verification.{name}" for name in PURE_VERIFICATION))
    assert all(is_within(name, pure) for name in ours - {"fraud_service.verification"})


@pytest.mark.parametrize("module", [name for name in FILES if is_within(name, ("fraud_service.domain",))])
def test_the_domain_uses_no_clock_random_id_or_io(module):
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    called = {node.func.attr for node in ast.walk(tree) if isinstance(node, ast.Call) and hasattr(node.func, "attr")}
    named = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and hasattr(node.func, "id")}
    assert not called & {"now", "utcnow", "today", "uuid4", "uuid1"}
    assert not named & {"open", "print", "input", "uuid4", "uuid1", "hash", "id"}


ONLY = {
    "quixstreams": ("fraud_service.runtime",),
    "confluent_kafka": (
        "fraud_service.kafka",
        "fraud_service.runtime",
        "fraud_service.processors",
        "fraud_service.admin",
        "fraud_service.demo.broker",
        "fraud_service.service",
    ),
    "prometheus_client": ("fraud_service.runtime.metrics.stream",),
    "sklearn": ("fraud_service.training", "fraud_service.evaluation"),
    "onnx": (),
    "river": ("fraud_service.models.river_learner",),
    "pickle": (),
    "joblib": (),
    "cloudpickle": (),
    "dill": (),
    "marshal": (),
    "shelve": (),
}


@pytest.mark.parametrize("library", ONLY)
def test_a_library_is_imported_only_where_it_belongs(library):
    strangers = [
        module for module in FILES if library in roots(imports(module)) and not is_within(module, ONLY[library])
    ]
    assert strangers == []


@pytest.mark.parametrize("library", ["sklearn", "onnx", "pickle", "joblib", "cloudpickle", "river", "pyarrow"])
def test_a_scorer_imports_no_training_library(library):
    assert library not in roots(closure("fraud_service.service"))


def test_the_import_search_finds_every_kind_of_import(tmp_path, monkeypatch):
    path = tmp_path / "module.py"
    path.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import pickle\nelse:\n    import json\n"
        "try:\n    import os.path\nexcept ImportError:\n    pass\n"
        "def later():\n    import river\n"
        "from . import errors\nfrom ..models import river_learner as model\n"
    )
    monkeypatch.setitem(FILES, "fraud_service.kafka.module", path)
    ours = {
        "fraud_service.kafka",
        "fraud_service.kafka.errors",
        "fraud_service.models",
        "fraud_service.models.river_learner",
    }
    at_once = {"typing", "typing.TYPE_CHECKING", "json", "os.path"} | ours
    assert imports("fraud_service.kafka.module", functions=False) == at_once
    assert imports("fraud_service.kafka.module") == at_once | {"river"}


# Modules without a test file of their name: the file that tests them, and why they share it.
TESTED_BY = {
    # Commands are tested as their user runs them, through the whole command line or on a broker.
    "unit/cli/test_cli.py": "cli.admin cli.data cli.models cli.options cli.service cli.verify",
    "unit/cli/test_inspect.py": "cli.inspection",
    "unit/cli/test_output.py": "demo.screen evaluation.html admin.models",
    # What these do is done to topics and groups of a cluster.
    "broker/test_operations_on_kafka.py": "admin.reset admin.refit",
    "broker/test_event_time_pacing_on_kafka.py": "admin.erase admin.rebuild",
    "broker/test_topic_reader_on_kafka.py": "kafka.consumer_groups",
    "broker/test_oversized_messages_on_kafka.py": "kafka.sender",
    "simulation/test_seeds.py": "processors.input_log",
    "e2e/test_demo.py": "demo.broker demo.monitor demo.run demo.setup",
    # Parts of one mechanism, tested through the whole of it.
    "unit/domain/test_codec.py": "domain.errors domain.records",
    "unit/domain/test_detector.py": "domain.decision domain.scoring",
    "unit/domain/test_snapshot.py": "domain.risk",
    "unit/domain/test_label_join.py": "domain.label_join_rows",
    "unit/domain/test_amounts.py": "domain.profile_buckets",
    "unit/domain/test_local_time.py": "domain.countries",
    "unit/domain/test_online_training.py": "domain.time",
    "unit/evaluation/test_metrics.py": "evaluation.alerts",
    "unit/evaluation/test_report.py": "evaluation.answer evaluation.charts",
    "unit/training/test_backtest.py": "training.label_coverage",
    "unit/models/test_river_learner.py": "domain.online_model",
    "unit/models/test_artifact.py": "models.onnx_graph",
    "unit/config/test_settings.py": "config.kafka_options config.setting_groups",
    "unit/config/test_keyring.py": "security.keys",
    "unit/kafka/test_topic_reader.py": "kafka.messages",
    "unit/runtime/test_batching.py": "runtime.application runtime.client_options",
    "unit/runtime/test_stream.py": "runtime.changelogs",
    "unit/runtime/test_health.py": "runtime.metrics.learner runtime.metrics.scorer runtime.metrics.stream",
    "unit/runtime/test_error_classification.py": "service",
    "unit/security/test_card_data.py": (
        "security.card_numbers security.deobfuscation security.digit_context security.issuers"
    ),
    "unit/training/test_inspection.py": (
        "training.column_guess training.column_risks training.history_facts training.history_head "
        "training.mapping_text training.proposal training.tolerant_rows"
    ),
    "unit/training/test_history.py": "training.history_arrow training.history_columns training.history_fields",
    "unit/training/test_history_files.py": "training.history_csv training.history_rows training.history_text",
    "unit/training/test_history_values.py": "training.history_times",
    "unit/verification/test_verify.py": "verification.captured_offsets verification.report",
    "unit/verification/test_replay.py": "verification.decisions verification.log_reader",
    "unit/verification/test_snapshots.py": "verification.snapshot_rebuild",
    "unit/verification/test_what_if.py": "verification.comparison",
}
UNIT = ROOT / "tests" / "unit"


def has_file_of_its_name(module: str) -> bool:
    """Whether a module, or the package within a package that it is in, has a test file of its name."""
    *folders, name = module.split(".")
    own = UNIT.joinpath(*folders, f"test_{name}.py")
    of_package = UNIT.joinpath(*folders[:-1], f"test_{folders[-1]}.py") if len(folders) > 1 else own
    return own.exists() or of_package.exists()


def test_every_module_has_a_test_file_of_its_name_or_is_listed_with_the_one_that_tests_it():
    modules = {name.removeprefix("fraud_service.") for name, path in FILES.items() if path.name[:2] != "__"}
    without = {module for module in modules if not has_file_of_its_name(module)}
    listed = [module for modules in TESTED_BY.values() for module in modules.split()]
    assert [module for module in without if not any(fnmatch(module, one) for one in listed)] == []
    assert [one for one in listed if listed.count(one) > 1 or not any(fnmatch(module, one) for module in without)] == []
    assert [file for file in TESTED_BY if not (ROOT / "tests" / file).exists()] == []


def test_unit_tests_start_no_broker_server_browser_or_container():
    needs = {"apache_kafka", "own_kafka", "containers", "prometheus", "chart", "support.prometheus"}
    for path in UNIT.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        used = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
        used |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
        used |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert used.isdisjoint(needs), path


def test_the_modules_that_the_scheduler_names_exist():
    assert [module for module in INDEPENDENT if not (ROOT / module).exists()] == []


def test_benchmarks_measure_new_processes_and_not_forks_of_the_benchmark():
    for path in sorted((ROOT / "benchmarks").rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Service":
                # A fork would run the code of this tree, also where another tree is measured.
                assert "is_forked" in {keyword.arg for keyword in call.keywords}, path
