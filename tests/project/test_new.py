"""`make new`: a service of another name, with and without accounts and events, that stands on its own.

The whole of a copy's `make lint` and `make test`: `python -m tests.project.whole_copies`.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from settings import NAME, VERSION
from tests.project.test_add_a_resource import follow
from tests.support.servers import free_port
from tests.support.service import ROOT
from tools.new.names import LONGEST, OWN, Name, refusal

Done = subprocess.CompletedProcess[str]

WAYS = ["", "accounts", "events", "accounts,events"]
BIN = Path(sys.executable).parent
IDENTITY = {
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.com",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.com",
    "GIT_CONFIG_GLOBAL": "/dev/null",
}


def make_new(name: str, folder: Path | str, without: str = "", *, platform: Path = ROOT) -> Done:
    """With the standard library alone."""
    command = [sys.executable, "-S", "-m", "tools.new", name, str(folder), without]
    env = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=platform, env=env, capture_output=True, text=True, check=False, timeout=120)


def run(*command: str, cwd: Path, **env: str) -> Done:
    given = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", **IDENTITY, **env}
    return subprocess.run(command, cwd=cwd, env=given, capture_output=True, text=True, check=False, timeout=300)


def succeeds(*command: str, cwd: Path, **env: str) -> str:
    done = run(*command, cwd=cwd, **env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module", params=WAYS, ids=lambda way: f"without {way}" if way else "whole")
def without(request: pytest.FixtureRequest) -> str:
    way: str = request.param
    return way


@pytest.fixture(scope="module")
def copy(without: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copy") / "harbour"
    done = make_new("harbour-master", folder, without)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of mypy, for what the copies have in common."""
    return tmp_path_factory.mktemp("mypy")


def texts(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            with suppress(UnicodeDecodeError):
                yield str(path.relative_to(folder)), path.read_text(encoding="utf-8")


# What is in it


def test_the_old_name_is_nowhere_but_in_what_it_remembers(copy: Path) -> None:
    names = {path for path, text in texts(copy) if NAME in f"{path} {text}".lower()}
    assert names == {"LICENSE"}  # whose copyright line has to stay


def test_no_mark_is_left(copy: Path) -> None:
    assert [path for path, text in texts(copy) if re.search(r"(#|<!--) (only with|end only|without \w+:)", text)] == []


def test_each_form_of_the_name_is_where_it_belongs(copy: Path) -> None:
    found = dict(texts(copy))
    assert 'NAME = "harbour-master"' in found["settings.py"]
    assert "<title>Harbour Master</title>" in found["infra/http/swagger_ui/page.html"]
    assert "harbour_master_build_info" in found["deploy/grafana/harbour-master.json"]
    assert "${MYSQL_DATABASE:-harbour_master}" in found["compose.yaml"]
    assert "${HARBOUR_MASTER_LISTEN:-" in found["compose.yaml"]
    assert "#MYSQL_USERNAME=harbour_master\n" in found[".env.example"]
    assert "CREATE DATABASE harbour_master " in found["docs/mysql.md"]
    assert found["README.md"].startswith("# Harbour Master\n")


def test_it_has_nothing_that_is_about_this_project(copy: Path) -> None:
    gone = ["CONTRIBUTING.md", "README.zh-CN.md", "benchmarks", "docs/performance.md", "tests/project", "tools"]
    assert [path for path in gone if (copy / path).exists()] == []
    assert [path for path, text in texts(copy) if path.endswith(".md") and "project/test_" in text] == []
    assert not re.search("bench|tools", (copy / "Makefile").read_text() + (copy / "pyproject.toml").read_text())


def test_its_pages_link_to_what_is_there(copy: Path) -> None:
    for path, text in texts(copy):
        if path.endswith(".md"):
            targets = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in link]
            assert [link for link in targets if not ((copy / path).parent / link).exists()] == [], path


def test_it_remembers_what_it_was_made_with(copy: Path, without: str) -> None:
    memory = json.loads((copy / ".new.json").read_text())
    commit = run("git", "rev-parse", "HEAD", cwd=ROOT).stdout.strip() or None
    parts = without.split(",") if without else []
    assert memory == {"version": VERSION, "commit": commit, "name": "harbour-master", "without": parts}


def test_a_part_that_is_left_out_leaves_no_trace(copy: Path, without: str) -> None:
    words = {
        "accounts": r"handlers.accounts|/v1/auth|SECRET_KEY|secret_key|LOGIN_RATE|TOKEN_TTL|sign_up",
        "events": r"K_SINK|k_sink|K_CE_|/v1/events|events\.outbox|INTO outbox",
        "accounts,events": r"EVENTS_TOKEN|events_token|sessions\.purge",
    }
    gone = "|".join(words[part] for part in words if set(part.split(",")) <= set(without.split(",")))
    product = [(path, text) for path, text in texts(copy) if not path.startswith(("tests/", "infra/"))]
    assert not gone or [path for path, text in product if re.search(gone, text)] == []
    pages = " ".join(text for path, text in product if path.endswith(".md"))
    assert "accounts" not in without or not re.search(r"(?i)(?<!service )\baccounts?\b|\bsessions?\b", pages)


# That it stands on its own


def test_its_code_is_formatted_clean_and_typed(copy: Path, cache: Path) -> None:
    succeeds(str(BIN / "ruff"), "check", "--no-cache", cwd=copy)
    succeeds(str(BIN / "ruff"), "format", "--check", "--no-cache", cwd=copy)
    succeeds(str(BIN / "mypy"), "--cache-dir", str(cache), cwd=copy)


@contextmanager
def served(folder: Path, **env: str) -> Iterator[httpx.Client]:
    port = free_port()
    given = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "HOST": "127.0.0.1", "PORT": str(port), **env}
    process = subprocess.Popen([sys.executable, "app.py"], cwd=folder, env=given, stdout=subprocess.PIPE, text=True)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            deadline = time.monotonic() + 40
            while not listens(port):
                assert process.poll() is None, process.stdout and process.stdout.read()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield client
    finally:
        process.terminate()
        process.communicate(timeout=20)
    assert process.returncode == 0


def listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def test_it_serves(copy: Path, without: str, tmp_path: Path) -> None:
    with served(copy, DATA_DIR=str(tmp_path)) as client:
        assert client.get("/").json()["name"] == "harbour-master"
        assert client.get("/health/ready").json()["status"] == "ok"
        assert "harbour_master_build_info{" in client.get("/metrics").text
        assert client.get("/docs").status_code == 200
        document = client.get("/openapi.json").json()
    assert document["info"]["title"].lower().replace(" ", "-") == "harbour-master"
    assert ("/v1/auth/login" in document["paths"]) == ("accounts" not in without)
    assert ("/v1/events" in document["paths"]) == ("events" not in without)
    assert (tmp_path / "harbour-master.db").exists()


def test_without_accounts_prod_asks_for_neither_key_nor_servers(copy: Path, without: str, tmp_path: Path) -> None:
    env = {"SYS_ENV": "prod", "DATA_DIR": str(tmp_path)}
    if "accounts" in without:
        with served(copy, METRICS_TOKEN=os.urandom(16).hex(), **env) as client:
            assert client.get("/health/ready").json()["status"] == "ok"
    else:
        done = run(sys.executable, "settings.py", cwd=copy, **env)
        asked = re.findall(r"(?m)^(\w+) is not set", done.stdout)
        assert (done.returncode, asked) == (os.EX_CONFIG, ["MYSQL_HOST", "MYSQL_PASSWORD", "REDIS_HOST", "SECRET_KEY"])


@pytest.mark.parametrize("without", ["", "accounts"], indirect=True)
def test_its_own_tests_pass(copy: Path) -> None:
    some = ["tests/platform/test_health.py", "tests/platform/test_settings.py", "tests/deploy/test_cloudrun.py"]
    succeeds(
        sys.executable, "-m", "pytest", "-q", "-x", "-k", "not mysql+redis", "-p", "no:cacheprovider", *some, cwd=copy
    )


@pytest.mark.parametrize("name", ["x", "a-name-of-forty-characters-with-hyphens-x"[:LONGEST].strip("-"), f"my-{NAME}"])
def test_a_short_a_long_and_a_name_that_holds_this_one_are_formatted_clean(name: str, tmp_path: Path) -> None:
    assert make_new(name, tmp_path).returncode == 0
    succeeds(str(BIN / "ruff"), "check", "--no-cache", cwd=tmp_path)
    succeeds(str(BIN / "ruff"), "format", "--check", "--no-cache", cwd=tmp_path)


def test_a_name_that_holds_this_one_is_put_in_once() -> None:
    name = Name(f"my-{OWN}")
    text = f"{OWN}_x {OWN.upper()}_Y {OWN.capitalize()} {OWN}"
    assert name(text) == f"my_{OWN}_x MY_{OWN.upper()}_Y My {OWN.capitalize()} my-{OWN}"


def test_without_accounts_the_page_on_resources_can_be_followed(copy: Path, without: str, tmp_path: Path) -> None:
    if without == "accounts":
        project = shutil.copytree(copy, tmp_path / "harbour")
        follow((copy / "docs/add-a-resource.md").read_text(encoding="utf-8"), project)
    else:
        page = (copy / "docs/add-a-resource.md").read_text(encoding="utf-8")
        lines = re.findall(r"(?m)^-(\S.*)$", page)
        assert [line for line in lines if line not in (copy / "app.py").read_text(encoding="utf-8").splitlines()] == []


# The command


def test_it_tells_its_steps_and_what_comes_next(tmp_path: Path) -> None:
    done = make_new("harbour-master", tmp_path / "har bour", " events , accounts ")
    assert [line for line in ("copying into", "formatting", "done") if line not in done.stdout] == []
    assert "without accounts and events" in done.stdout
    assert f"cd '{tmp_path / 'har bour'}'" in done.stdout
    assert "git init" in done.stdout


NOT_LABELS = [
    "",
    "Harbour",
    "harbour_master",
    "-harbour",
    "harbour-",
    "har.bour",
    "1harbour",
    "a" * (LONGEST + 1),
    "häfen",
]


@pytest.mark.parametrize("name", [*NOT_LABELS, NAME, "redis"])
def test_a_name_that_cannot_be_had_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    refused(make_new(name, tmp_path / "harbour"), "NAME")
    assert not (tmp_path / "harbour").exists()


def test_words_of_the_code_are_no_names() -> None:
    paths = (*ROOT.glob("*/"), *ROOT.glob("infra/*/"), *ROOT.glob("handlers/[a-z]*"), *ROOT.glob("tests/[a-z]*/"))
    words = {path.stem for path in paths if path.stem[0].isalpha()}
    words |= {"mysql", "root", "information-schema", "outbox", "session", "sessions", "public", "settings", "app"}
    assert [word for word in sorted(words) if not refusal(word)] == []


@pytest.mark.parametrize("without", ["account", "accounts,metrics", "accounts events"])
def test_an_unknown_part_is_refused_in_one_line(without: str, tmp_path: Path) -> None:
    refused(make_new("harbour-master", tmp_path / "harbour", without), "WITHOUT")


def test_a_folder_that_cannot_be_had_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in ("", tmp_path, tmp_path / "file", tmp_path / "file" / "below", ROOT, ROOT / "copy", "/proc/harbour"):
        refused(make_new("harbour-master", folder), "DIR")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def refused(done: Done, variable: str) -> None:
    assert done.returncode == os.EX_USAGE
    [line] = done.stderr.splitlines()
    assert line.startswith("make new: ")
    assert variable in line


# Where it comes from


def platform_in(folder: Path) -> Path:
    """The files of this one, as a checkout would have them, without git."""
    for path in subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split():
        if (ROOT / path).is_file():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, folder / path)
    return folder


@pytest.mark.parametrize("without", ["accounts"], indirect=True)
def test_without_git_it_copies_what_a_checkout_would_have(copy: Path, without: str, tmp_path: Path) -> None:
    platform = platform_in(tmp_path / "platform")
    for litter in (".venv/bin/python", "data/berth.db", ".env", "infra/__pycache__/a.pyc"):
        (platform / litter).parent.mkdir(parents=True, exist_ok=True)
        (platform / litter).write_text("litter")
    done = make_new("harbour-master", tmp_path / "harbour", without, platform=platform)
    assert done.returncode == 0, done.stderr
    there = {path: text for path, text in texts(tmp_path / "harbour") if not path.startswith((".new.json", "data/"))}
    assert there == {path: text for path, text in texts(copy) if not path.startswith((".new.json", "data/"))}
    assert json.loads((tmp_path / "harbour/.new.json").read_text())["commit"] is None


def test_without_ruff_the_copy_is_told_to_format_itself(tmp_path: Path) -> None:
    platform, harbour = platform_in(tmp_path / "platform"), tmp_path / "harbour"
    python = str(Path(sys.base_prefix) / "bin/python3")
    said = succeeds(python, "-m", "tools.new", "harbour-master", str(harbour), cwd=platform, PATH="/usr/bin:/bin")
    assert "    make format\n" in said
    succeeds(str(BIN / "ruff"), "check", "--no-cache", cwd=harbour)


MAKE = f"make --old-file=.venv/dev BIN={BIN}"  # with the packages that run the tests


def blocks_of_the_page(platform: Path) -> list[str]:
    """What docs/upgrading.md has one type in: once, for each later version, and when the branch is missing."""
    found = re.findall(r"(?ms)^```console\n(.*?)^```$", (ROOT / "docs/upgrading.md").read_text(encoding="utf-8"))
    return [re.sub(r"PLATFORM=\S+", f"PLATFORM={platform}", block).replace("make -C", f"{MAKE} -C") for block in found]


def migration_named(name: str, number: str, before: str) -> tuple[str, str]:
    numbers = f'revision = "{number}"\ndown_revision = "{before}"'
    text = f'"""Another table."""\n\n{numbers}\n\n\ndef upgrade() -> None:\n    """Nothing."""\n'
    return f"migrations/versions/{number}_{name}.py", text


@pytest.mark.parametrize(("branch", "left_out"), [("kept", ""), ("missing", "accounts,events")])
def test_a_copy_takes_a_later_version_over_as_the_page_says(branch: str, left_out: str, tmp_path: Path) -> None:
    platform, harbour = platform_in(tmp_path / "platform"), tmp_path / "harbour"
    once, later, missing = blocks_of_the_page(platform)
    assert make_new("harbour-master", harbour, left_out, platform=platform).returncode == 0
    succeeds("sh", "-ec", once.splitlines()[0] if branch == "missing" else once, cwd=harbour)
    replace(harbour / "handlers/root.py", '"""Tell what this is."""', '"""Tell what this harbour is."""')
    succeeds("git", "commit", "-qam", "A change of its own", cwd=harbour)
    if branch == "missing":
        text = missing.replace("WITHOUT=", f"WITHOUT={left_out}")
        succeeds("sh", "-ec", text, cwd=harbour, PLATFORM=str(platform))
    replace(platform / "settings.py", f'VERSION = "{VERSION}"', 'VERSION = "9.9.9"')
    replace(platform / "infra/base/ids.py", '"""', '"""Of berth: ')
    replace(platform / "handlers/root.py", '"""What this is, for', '"""What Berth is, for')
    succeeds("sh", "-ec", later, cwd=harbour)
    root = (harbour / "handlers/root.py").read_text()
    assert "What Harbour Master is, for" in root
    assert "Tell what this harbour is." in root
    assert (harbour / "infra/base/ids.py").read_text().startswith('"""Of harbour-master: ')
    assert json.loads((harbour / ".new.json").read_text())["version"] == "9.9.9"
    assert f'VERSION = "{VERSION}"' in (harbour / "settings.py").read_text()
    changed = succeeds("git", "diff", "--name-only", "HEAD^1", cwd=harbour).split()
    assert changed == [".new.json", "handlers/root.py", "infra/base/ids.py"]


def test_a_later_migration_of_the_platform_comes_after_those_that_the_copy_has_run(tmp_path: Path) -> None:
    platform, harbour = platform_in(tmp_path / "platform"), tmp_path / "harbour"
    once, later, _ = blocks_of_the_page(platform)
    assert make_new("harbour-master", harbour, platform=platform).returncode == 0
    succeeds("sh", "-ec", once, cwd=harbour)
    newest = max(path.name for path in (harbour / "migrations/versions").glob("0*.py")).partition("_")[0]
    numbers = [f"{int(newest) + more:04}" for more in range(4)]
    path, text = migration_named("add_notes", numbers[1], numbers[0])
    (harbour / path).write_text(text)
    succeeds("sh", "-ec", "git add . && git commit -qm 'A migration of its own'", cwd=harbour)
    for name, number, before in (("add_widgets", numbers[1], numbers[0]), ("add_wheels", numbers[2], numbers[1])):
        path, text = migration_named(name, number, before)
        (platform / path).write_text(text)
        succeeds("sh", "-ec", later, cwd=harbour)
    for name, place in (("add_notes", 1), ("add_widgets", 2), ("add_wheels", 3)):
        path, text = migration_named(name, numbers[place], numbers[place - 1])
        assert (harbour / path).read_text() == text
    assert len(list((harbour / "migrations/versions").glob("*_add_*.py"))) == 3
    again = succeeds("sh", "-ec", later, cwd=harbour)
    assert "already" in again
    succeeds(sys.executable, "-c", "from infra.sql.revisions import check_chain as c; c()", cwd=harbour)


@pytest.mark.parametrize("wrong", ["", "nowhere", "no branch"])
def test_what_is_no_copy_is_not_upgraded(wrong: str, tmp_path: Path) -> None:
    harbour = tmp_path / "harbour"
    if wrong == "no branch":
        assert make_new("harbour-master", harbour).returncode == 0
        succeeds("git", "init", "-q", cwd=harbour)
    folder = "" if not wrong else str(harbour)
    done = run(sys.executable, "-m", "tools.new.upgrade", folder, cwd=ROOT)
    assert done.returncode == os.EX_USAGE
    [line] = done.stderr.splitlines()
    assert line.startswith("make upgrade: ")
    assert ("a branch platform" if wrong == "no branch" else "DIR") in line


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
