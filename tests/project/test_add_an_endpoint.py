"""The README's "Add an endpoint", followed to the letter in a copy of the code."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import TEST_SETTINGS
from tests.support.service import ROOT, Account, Service


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code, with the README's file and line in it."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("app.py", "settings.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    for name in ("handlers", "infra", "migrations"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    section = (ROOT / "README.md").read_text().partition("### Add an endpoint\n")[2]
    module = re.findall(r"`handlers/(\w+)\.py`", section)[0]
    [handler] = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    [route] = re.findall(r"^\+(.*\n)", section, re.MULTILINE)
    (folder / "handlers" / f"{module}.py").write_text(handler)
    app = (folder / "app.py").read_text()
    app = app.replace("from handlers import ", f"from handlers import {module}, ", 1)
    (folder / "app.py").write_text(app.replace("ROUTES = [\n", f"ROUTES = [\n{route}", 1))
    return folder


@pytest.fixture(scope="module")
def extended(copy: Path) -> Iterator[Service]:
    class Extended(Service):
        command = (sys.executable, str(copy / "app.py"))

    with Extended(TEST_SETTINGS) as service:
        yield service


@pytest.fixture(scope="module")
def ada(extended: Service) -> Account:
    return extended.sign_up(username="Ada")


def test_the_endpoint_answers(extended: Service, ada: Account) -> None:
    answer = extended.client.get("/v1/profiles/ada", headers=ada.headers)
    assert answer.status_code == 200
    assert (set(answer.json()), answer.json()["username"]) == ({"username", "member_since"}, "Ada")


def test_the_endpoint_asks_for_a_token_and_answers_problems(extended: Service, ada: Account) -> None:
    assert extended.client.get("/v1/profiles/ada").status_code == 401
    assert extended.client.get("/v1/profiles/nobody", headers=ada.headers).json()["status"] == 404


def test_the_endpoint_is_in_the_document_by_itself(extended: Service) -> None:
    described = extended.client.get("/openapi.json").json()["paths"]["/v1/profiles/{username}"]["get"]
    assert described["summary"] == "Read the profile of an account"
    assert described["responses"].keys() == {"200", "401", "404", "default"}


def test_the_example_keeps_the_projects_style(copy: Path) -> None:
    example = copy / "handlers" / "profiles.py"
    for check in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *check, "--quiet", "--no-cache", str(example)]
        assert subprocess.run(command, cwd=copy, check=False).returncode == 0
