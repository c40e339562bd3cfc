"""docs/add-a-resource.md, followed to the letter in a copy of the code."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TEST_SETTINGS
from tests.support.service import ROOT, Account, Service, clean_environment

PAGE = ROOT / "docs" / "add-a-resource.md"
COPIED = (".ci", "app.py", "settings.py", "pyproject.toml", "Makefile", "handlers", "infra", "migrations", "tests")
NEW = ["handlers/notes.py", "tests/test_notes.py"]
PYTHON = [sys.executable, "-m"]
# The interpreter that runs this has all that .venv would.
MAKE = ["make", f"BIN={Path(sys.executable).parent}", "-o", ".venv/run", "-o", ".venv/dev"]
# How each command is run, by its first words: what takes long, on the new files only.
COMMANDS: dict[str, Callable[[list[str]], list[list[str]]]] = {
    "make migration": lambda command: [[*MAKE, *command[1:]]],
    "make migrate": lambda command: [[*MAKE, *command[1:]]],
    "make lint": lambda _: [
        [*PYTHON, "ruff", "check", "--no-cache", *NEW],
        [*PYTHON, "ruff", "format", "--no-cache", "--check", *NEW],
        [*PYTHON, "mypy", *NEW],
    ],
    "make test": lambda command: [[*PYTHON, "pytest", "-q", "-n", "0", *shlex.split(command[2].removeprefix("ARGS="))]],
    "make run": lambda _: [],  # the service of `extended`
}

Json = dict[str, Any]


def follow(page: str, folder: Path) -> None:
    """Does what each block of the page says; the file that it is about is the last that the text before it names."""
    steps = re.split(r"^```(\w+)\n(.*?)^```\n", page, flags=re.MULTILINE | re.DOTALL)
    for text, language, block in zip(steps[::3], steps[1::3], steps[2::3], strict=False):
        name = re.findall(r"`([^`]+)`", text)[-1:]
        if language == "console":
            for line in block.splitlines():
                run(shlex.split(line), folder)
        elif language == "diff":
            edit(folder / name[0], block)
        elif name == ["upgrade()"]:
            [made] = (folder / "migrations/versions").glob("*_add_notes.py")
            made.write_text(made.read_text().partition("def upgrade()")[0] + block)
        else:
            (folder / name[0]).write_text(block)


def run(command: list[str], folder: Path) -> None:
    for instead in COMMANDS[" ".join(command[:2])](command):
        done = subprocess.run(
            instead,
            cwd=folder,
            env=clean_environment({**TEST_SETTINGS, "HOME": folder}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}"


def edit(file: Path, diff: str) -> None:
    text = file.read_text()
    for hunk in re.split("^@@.*\n", diff, flags=re.MULTILINE)[1:]:
        lines = hunk.splitlines(keepends=True)
        old, new = ("".join(line[1:] for line in lines if line[0] in kept) for kept in (" -", " +"))
        assert text.count(old) == 1, f"{file.name} doesn't have, once:\n{old}"
        text = text.replace(old, new)
    file.write_text(text)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code, with all that the page adds."""
    folder = tmp_path_factory.mktemp("copy")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder)
    follow(PAGE.read_text(), folder)
    return folder


@pytest.fixture(scope="module")
def extended(copy: Path) -> Iterator[Service]:
    class Extended(Service):
        command = (sys.executable, str(copy / "app.py"))

    with Extended({**TEST_SETTINGS, "CORS_ORIGINS": "https://app.example"}) as service:
        yield service


@pytest.fixture(scope="module")
def ada(extended: Service) -> Account:
    return extended.sign_up(username="Ada")


@pytest.fixture(scope="module")
def operations(extended: Service) -> Json:
    paths = extended.client.get("/openapi.json").json()["paths"]
    return {f"{method} {path}": operation for path, methods in paths.items() for method, operation in methods.items()}


def test_the_page_is_followed_and_its_commands_succeed(copy: Path) -> None:
    assert [name for name in NEW if not (copy / name).exists()] == []


def test_the_notes_answer(extended: Service, ada: Account) -> None:
    written = extended.client.post("/v1/notes", json={"text": "Tack"}, headers=ada.headers)
    note = written.headers["location"]
    changed = extended.client.patch(
        note, json={"text": "Gybe"}, headers={**ada.headers, "If-Match": written.headers["etag"]}
    )
    assert (written.status_code, changed.status_code, changed.json()["text"]) == (201, 200, "Gybe")
    assert extended.client.get("/v1/notes", headers=ada.headers).json() == {"items": [changed.json()], "next": None}
    assert extended.client.get("/").json()["links"]["notes"] == "/v1/notes"


@pytest.mark.parametrize("wrong", ["x", "01A20CC4-61DB-78BA-BE5F-CAE656CB245F", "%00", "1"])
def test_what_is_no_id_is_no_resource(extended: Service, ada: Account, wrong: str) -> None:
    answer = extended.client.get(f"/v1/notes/{wrong}", headers=ada.headers)
    assert (answer.status_code, answer.json()["detail"]) == (404, "no such resource")


@pytest.mark.parametrize(
    ("if_match", "status"),
    [
        ('"1"', 200),
        ("*", 200),
        ('"0", "1"', 200),
        ('"0","1"', 200),
        ('W/"1"', 412),
        ('"2"', 412),
        ("1", 412),
        ("", 412),
        (None, 428),
    ],
)
def test_if_match_is_compared_as_rfc_9110_says(
    extended: Service, ada: Account, if_match: str | None, status: int
) -> None:
    note = extended.client.post("/v1/notes", json={"text": "Tack"}, headers=ada.headers).headers["location"]
    headers = ada.headers | ({"If-Match": if_match} if if_match is not None else {})
    assert extended.client.patch(note, json={"text": "Gybe"}, headers=headers).status_code == status


def test_all_of_it_is_in_the_document(operations: Json) -> None:
    assert [name for name in operations if "notes" in name] == [
        "get /v1/notes",
        "post /v1/notes",
        "get /v1/notes/{note_id}",
        "patch /v1/notes/{note_id}",
        "delete /v1/notes/{note_id}",
    ]
    change = operations["patch /v1/notes/{note_id}"]
    path, header = change["parameters"]
    assert (path["name"], path["in"], path["schema"]["format"]) == ("note_id", "path", "uuid")
    assert (header["name"], header["in"], header["required"]) == ("If-Match", "header", True)
    assert change["responses"].keys() == {"200", "400", "401", "404", "412", "415", "422", "428", "429", "default"}
    assert change["responses"]["404"]["description"] == "the account has no such note"
    assert change["responses"]["200"]["headers"].keys() == {"ETag"}
    assert operations["post /v1/notes"]["responses"]["201"]["headers"].keys() == {"ETag", "Location"}
    page = operations["get /v1/notes"]["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
    assert page.endswith("/Page_Note_")


def test_a_page_of_another_origin_may_send_and_read_what_the_notes_declare(extended: Service, ada: Account) -> None:
    origin = {"Origin": "https://app.example"}
    asked = {"Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "if-match"}
    preflight = extended.client.options("/v1/notes/x", headers={**origin, **asked})
    listed = extended.client.get("/v1/notes", headers={**ada.headers, **origin})
    assert preflight.status_code == 200
    assert {"etag", "location"} <= set(listed.headers["access-control-expose-headers"].lower().split(", "))
