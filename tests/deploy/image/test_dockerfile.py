"""What scanners say of the Dockerfile, without a container engine."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def tool(name: str) -> str:
    found = shutil.which(name, path=Path(sys.executable).parent)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def check(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_hadolint_finds_nothing():
    done = check(tool("hadolint"), "Dockerfile")
    assert done.returncode == 0, done.stdout


def test_hadolint_finds_a_planted_mistake(tmp_path):
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM debian\nRUN apt-get install curl\n")
    assert check(tool("hadolint"), str(bad)).returncode == 1


def trivy(folder: Path) -> subprocess.CompletedProcess[str]:
    return check(
        tool("trivy"), "config", "--skip-check-update", "--skip-version-check", "--quiet", "--exit-code=1",
        "--misconfig-scanners=dockerfile", "--skip-dirs=.venv", "--skip-dirs=.cache", str(folder / "Dockerfile"),
    )  # fmt: skip


def test_trivy_finds_no_misconfiguration():
    done = trivy(ROOT)
    assert done.returncode == 0, done.stdout
    assert "Dockerfile" in done.stdout


def test_trivy_finds_a_planted_root_user(tmp_path):
    (tmp_path / "Dockerfile").write_text('FROM debian:12\nCMD ["sh"]\n')
    done = trivy(tmp_path)
    assert done.returncode == 1
    assert "root" in done.stdout


@pytest.mark.parametrize("file", ["Dockerfile", "Makefile"])
def test_every_package_that_pip_installs_is_pinned_by_hash(file):
    installs = [line for line in (ROOT / file).read_text().splitlines() if "pip install" in line]
    assert installs
    assert [line for line in installs if "--require-hashes" not in line] == []
    pinned = [line for line in (ROOT / "ops/uv.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in pinned[1:] if not line.startswith("    --hash=sha256:")] == []
    assert len(pinned) > 10, "one hash for each platform"


def test_the_build_context_has_only_the_files_of_the_image():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    copied = [
        source
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for source in line.split()[1:-1]
    ]
    assert len(copied) > 4
    assert {rule[1:] for rule in rules if rule.startswith("!")} == set(copied)
