"""The files that editors, GitHub and people look for: of the form that they take, and saying what the project does."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.support.service import ROOT

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
SCHEMAS = {
    ".github/dependabot.yml": "dependabot",
    ".github/ISSUE_TEMPLATE/bug.yml": "github-issue-forms",
    ".github/ISSUE_TEMPLATE/idea.yml": "github-issue-forms",
    ".github/ISSUE_TEMPLATE/config.yml": "github-issue-config",
}


def read(name: str) -> Any:
    return YAML(typ="safe").load(ROOT / name)


@pytest.mark.parametrize(("name", "schema"), SCHEMAS.items())
def test_github_takes_it(name: str, schema: str) -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", name]
    done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout


def test_every_issue_form_is_checked() -> None:
    forms = {str(path.relative_to(ROOT)) for path in (ROOT / ".github/ISSUE_TEMPLATE").iterdir()}
    assert forms <= SCHEMAS.keys()


def test_updates_are_proposed_for_all_that_is_pinned() -> None:
    ecosystems = {each["package-ecosystem"] for each in read(".github/dependabot.yml")["updates"]}
    assert ecosystems == {"pip", "github-actions", "docker", "docker-compose"}


def test_the_checks_before_a_commit_are_pieces_of_make_lint() -> None:
    [repository] = read(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"  # nothing is downloaded: the versions are requirements-dev.txt's
    for hook in repository["hooks"]:
        assert hook["language"] == "system"
        program, _, options = hook["entry"].removeprefix(".venv/bin/").partition(" ")
        assert re.search(rf"\$\(BIN\)/{program}( [^&\n]*)?{re.escape(options)}", MAKEFILE), hook
        assert re.search(rf"^{program}(-bin)?==", (ROOT / "requirements-dev.txt").read_text(), re.MULTILINE), hook


def test_the_python_of_version_managers_is_the_oldest_that_will_do_and_one_that_ci_runs() -> None:
    version = (ROOT / ".python-version").read_text().strip()
    assert f'\nrequires-python = ">={version}"\n' in (ROOT / "pyproject.toml").read_text()
    assert f'python: ["{version}"]' in (ROOT / ".github/workflows/ci.yml").read_text()


def test_editors_keep_the_line_length_that_ruff_asks_for() -> None:
    parser = ConfigParser()
    parser.read_string("[editors]\n" + (ROOT / ".editorconfig").read_text())
    with (ROOT / "pyproject.toml").open("rb") as file:
        assert parser.getint("*.{py,toml,sh}", "max_line_length") == tomllib.load(file)["tool"]["ruff"]["line-length"]
    assert parser.get("Makefile", "indent_style") == "tab"


def test_the_devcontainer_makes_what_its_editor_uses() -> None:
    content = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    [version] = re.findall(r"^ARG PYTHON_IMAGE=python:(.+)-slim$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert f":{version}-" in content["image"]
    assert content["postCreateCommand"] == "make .venv/dev"
    assert "\n.venv/dev:" in MAKEFILE
    assert content["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"] == ".venv/bin/python"
    assert content["containerEnv"]["HOST"] == "0.0.0.0"  # noqa: S104 - a forwarded port comes from outside


def test_the_licence_is_mit() -> None:
    assert (ROOT / "LICENSE").read_text().startswith("MIT License\n")


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_an_example_needs_nothing_that_make_run_does_not_install(example: Path) -> None:
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    imported = {
        name.partition(".")[0]
        for node in ast.walk(ast.parse(example.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert imported - sys.stdlib_module_names <= locked
