"""The pages: each link leads somewhere, and each block of commands is run, or the table here says why it can't be."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

from settings import VARIABLES
from tests.conftest import EVENTS_TOKEN, TEST_SETTINGS
from tests.support.manifests import DEPLOY, Manifest, compose, is_known, read_all, render
from tests.support.service import ROOT, Service

PAGES = sorted(
    str(path.relative_to(ROOT))
    for folder in ("", "docs", "docs/deployment", "deploy/logs")
    for path in (ROOT / folder).glob("*.md")
)
# Their commands make copies of the project: each has a test of its own.
TESTED_APART = {"docs/add-a-resource.md", "docs/upgrading.md"}

MAKE, SERVED, STAND_INS, SETTINGS, SECRETS, MARIADB = "make", "served", "stand-ins", "settings", "secrets", "MariaDB"
# How each block is run, by its first words. One that isn't run has a reason, which has a blank in it.
TABLE = {
    "README.md": {
        "make run": MAKE,
        "curl -s localhost:8000/v1/auth/register": SERVED,
        "make new": MAKE,
        "docker compose up": STAND_INS,
        "export MYSQL_HOST": MAKE,
    },
    "CONTRIBUTING.md": {"make lint": MAKE},
    "docs/variables.md": {"python settings.py": SETTINGS},
    "docs/operations.md": {"curl -i localhost:8000/v1/events": SERVED},
    "docs/mysql.md": {"MYSQL_USERNAME=berth_migrate": MARIADB},  # test_mysql.py, after the page's SQL
    "docs/supply-chain.md": {
        "make lock": MAKE,
        "cosign verify": "nothing has been released and signed yet",
    },
    "docs/deployment/compose.md": {
        "docker build": STAND_INS,  # for real: `make test-image`
        "docker run -d": STAND_INS,
        "docker run --rm": STAND_INS,
        "docker compose up": STAND_INS,
        "install -d -m 700": SECRETS,
    },
    "docs/deployment/kubernetes.md": {
        "docker build": STAND_INS,
        "kubectl -n berth-prod delete": STAND_INS,
    },
    "docs/deployment/knative.md": {"kubectl -n berth-knative delete": STAND_INS},
    "docs/deployment/cloud-run.md": {
        "export PROJECT": STAND_INS,
        "docker build": STAND_INS,
    },
    "deploy/logs/README.md": {
        "kubectl logs": "lnav and a cluster are not to be had here; the page says what was run by hand"
    },
}
# Made beside this page, not there yet.
TARGETS_TO_COME = {"mutants", "new", "release", "test-quick"}


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, languages: str = "console") -> list[str]:
    return re.findall(rf"^```(?:{languages})\n(.*?)^```$", text_of(page), re.MULTILINE | re.DOTALL)


def run_as(how: str) -> list[tuple[str, str]]:
    """The page and the text of each block that the table has run so."""
    return [
        (page, block)
        for page, rows in TABLE.items()
        for block in blocks(page)
        for start, way in rows.items()
        if way == how and block.startswith(start)
    ]


def in_blocks(how: str) -> pytest.MarkDecorator:
    found = run_as(how)
    return pytest.mark.parametrize(("page", "block"), found, ids=[f"{page}: {block[:24]}" for page, block in found])


def test_the_table_has_every_block_of_commands_and_no_other() -> None:
    for page in set(PAGES) - TESTED_APART - {"README.zh-CN.md"}:  # whose blocks are README's: test_readme.py
        starts = TABLE.get(page, {})
        found = [[start for start in starts if block.startswith(start)] for block in blocks(page)]
        assert [matches[:1] for matches in found] == [[start] for start in starts], page


# Links


def anchors(text: str) -> set[str]:
    """As GitHub makes them of headings."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_each_link_leads_to_a_file_and_a_heading_that_are_there(page: str) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text_of(page)):
        path, _, anchor = link.partition("#")
        target = os.path.normpath(Path(page).parent / path) if path else page
        if target in TESTED_APART - set(PAGES):  # written beside this, not there yet
            continue
        assert (ROOT / target).exists(), link
        assert not anchor or anchor in anchors(text_of(target)), link


@pytest.mark.parametrize("page", PAGES)
def test_each_file_that_is_named_is_there(page: str) -> None:
    named = re.findall(r"`((?:deploy|docs|infra|handlers|tests|examples|benchmarks)/[\w./-]*)`", text_of(page))
    made = {"docs/add-a-resource.md": {"handlers/notes.py", "tests/test_notes.py"}}.get(page, set())
    assert [name for name in named if not (ROOT / name).exists() and name not in made] == []


def test_no_picture_has_a_semicolon() -> None:
    """In Mermaid it ends a statement, also inside a message: GitHub would show an error in the picture's place."""
    pictures = {page: blocks(page, "mermaid") for page in PAGES}
    assert [page for page, found in pictures.items() if any(";" in picture for picture in found)] == []
    assert sum(map(len, pictures.values())) >= 7


# Rooms


def test_the_architecture_has_each_room_and_who_may_import_whom() -> None:
    page = text_of("docs/architecture.md")
    rooms = {f"infra/{path.parent.name}/" for path in (ROOT / "infra").glob("*/__init__.py")}
    assert set(re.findall(r"^\| `(infra/\w+/)` \|", page, re.MULTILINE)) == rooms
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    [layers] = [each["layers"] for each in contracts if "infra.fast" in each.get("layers", [])]
    [told] = re.findall(r"^Imports go one way.*?\. ", page, re.MULTILINE | re.DOTALL)
    assert re.findall(r"infra\.\w+", told) == re.findall(r"infra\.\w+", " ".join(layers))


# make


def targets() -> set[str]:
    found = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    return found | TARGETS_TO_COME


@pytest.mark.parametrize("page", PAGES)
def test_each_target_of_make_that_is_named_is_there(page: str) -> None:
    text = text_of(page)
    named = re.findall(r"(?:^|`)make (?:-C \S+ )?([a-z][a-z-]*)", text, re.MULTILINE)
    assert set(named) <= targets()


@in_blocks(MAKE)
def test_a_block_for_make_has_nothing_but_targets_and_variables(page: str, block: str) -> None:
    for words in (shlex.split(line, comments=True) for line in block.splitlines()):
        if words[0] == "export":
            assert {word.partition("=")[0] for word in words[1:]} <= VARIABLES.keys()
        else:
            assert words[0] == "make"
            assert all(re.fullmatch("[A-Z]+=.*", word) for word in words[2:])


# Settings


@in_blocks(SETTINGS)
def test_the_commands_about_settings_run(page: str, block: str, tmp_path: Path) -> None:
    for line in block.splitlines():
        command = [sys.executable, *shlex.split(line, comments=True)[1:]]
        env = {"PATH": os.environ["PATH"], "DATA_DIR": str(tmp_path)}
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stderr) == (0, ""), line
        assert "MYSQL_HOST" in done.stdout


# Requests


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Service({**TEST_SETTINGS, "EVENTS_TOKEN": EVENTS_TOKEN}) as service:
        yield service


def shell(script: str, env: dict[str, str] | None = None) -> str:
    """What it prints; the shell ends at the first command that fails, or variable that isn't set."""
    env = {"PATH": os.environ["PATH"], **(env or {})}
    command = ["sh", "-euc", script]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


@in_blocks(SERVED)
def test_the_requests_are_answered_as_they_stand(page: str, block: str, service: Service) -> None:
    block = block.replace("localhost:8000", service.url).replace("curl -i ", "curl -si ")
    said = shell(block, {"EVENTS_TOKEN": EVENTS_TOKEN})
    if page == "README.md":
        [shown] = [text for text in blocks(page, "json") if '"ada"' in text]
        differs = partial(re.sub, r'"(id|created_at|updated_at)":"[^"]*"', r'"\1":"*"')
        assert differs(said.splitlines()[-1].rpartition("}{")[2]).lstrip("{") == differs(shown.strip()).lstrip("{")
    else:
        assert said.startswith("HTTP/1.1 204")


# Docker, Kubernetes, Google Cloud: with programs in their places that only remember what they were asked


class Call(NamedTuple):
    program: str
    words: list[str]

    def option(self, name: str) -> str:
        return self.words[self.words.index(name) + 1]


def called(page: str, block: str, folder: Path) -> list[Call]:
    """What the block calls, after the page's blocks of variables."""
    calls = folder / "calls"
    for name in ("docker", "kind", "kubectl", "gcloud"):
        (folder / name).write_text(f"#!/bin/sh\n{{ printf '%s\\t' {name} \"$@\"; echo; }} >> {calls}\n")
        (folder / name).chmod(0o755)
    (folder / "git").write_text("#!/bin/sh\necho 0123abc\n")
    (folder / "git").chmod(0o755)
    calls.touch()
    exports = [text for where, text in run_as(STAND_INS) if where == page and text.startswith("export ")]
    script = "\n".join([*exports, block]).replace("/tmp/", f"{folder}/")  # noqa: S108 - what is replaced
    shell(script, {"PATH": f"{folder}:{os.environ['PATH']}"})
    return [Call(*split(line)) for line in calls.read_text().splitlines()]


def split(line: str) -> tuple[str, list[str]]:
    program, *words = line.rstrip("\t").split("\t")
    return program, words


@in_blocks(STAND_INS)
def test_what_a_platforms_program_is_asked_is_there(page: str, block: str, tmp_path: Path) -> None:
    calls = called(page, block, tmp_path)
    assert calls or block.startswith("export ")
    for call in calls:
        CHECKS[call.program](page, call)


def check_docker(page: str, call: Call) -> None:
    command, *words = call.words
    if command == "build":
        declared = re.findall(r"^ARG (\w+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
        given = [after.partition("=")[0] for word, after in pairwise(words) if word == "--build-arg"]
        assert set(given) <= set(declared)
        assert words[-1] == "."
    elif command == "run":
        [image] = [number for number, word in enumerate(words) if word == "berth" and words[number - 1] != "--name"]
        assert not words[image + 1 :] or is_known(words[image + 1 :]) or words[image + 1 :] == ["python", "settings.py"]
        assert "--env-file" not in words or f"# {call.option('--env-file')}\n" in text_of(page)
    elif command == "compose":
        assert "--profile" not in words or [call.option("--profile")] in [
            each.get("profiles") for each in compose()["services"].values()
        ]
        assert words[-1] in {"up", "watch"}
    else:
        assert command == "push"


def check_kind(page: str, call: Call) -> None:
    assert call.words[:2] == ["load", "docker-image"]
    assert f"docker build -t {call.words[2]} ." in text_of(page)


def check_kubectl(page: str, call: Call) -> None:
    if call.words[0] == "apply":
        folder = str((ROOT / call.option("-k")).relative_to(DEPLOY))
        manifests = render(folder)
        for job in (each["metadata"] for each in manifests if each["kind"] == "Job"):  # which nobody can change
            gone = f"kubectl -n {job['namespace']} delete job {job['name']} --ignore-not-found"
            [block] = [text for text in blocks(page) if f"apply -k deploy/{folder}" in text]
            assert gone in block.partition("kubectl apply")[0]
        return
    manifests = manifests_in(call.option("-n"))
    kind, name = named_object(call)
    found = [each for each in manifests if each["kind"].lower() == kind and each["metadata"]["name"] == name]
    assert found, call
    if call.words[2] == "port-forward":
        assert int(call.words[-1].partition(":")[2]) in [port["port"] for port in found[0]["spec"]["ports"]]


def named_object(call: Call) -> tuple[str, str]:
    """The kind, as in a manifest but in lower case, and the name."""
    if call.words[2] == "delete":
        return call.words[3], call.words[4]
    [both] = [word for word in call.words if re.fullmatch(r"[a-z]+/[a-z-]+", word)]
    kind, _, name = both.partition("/")
    return kind.replace("ksvc", "service"), name


def manifests_in(namespace: str) -> list[Manifest]:
    folders = ["kubernetes/overlays/dev", "kubernetes/overlays/prod", "knative"]
    [found] = [render(folder) for folder in folders if namespace_of(folder) == namespace]
    return found


def namespace_of(folder: str) -> str:
    [namespace] = [each["metadata"]["name"] for each in render(folder) if each["kind"] == "Namespace"]
    return str(namespace)


def check_gcloud(page: str, call: Call) -> None:
    del page
    if call.words[2] == "replace":
        path = Path(call.words[3])
        [manifest] = read_all(path)
        assert "YOUR_" not in path.read_text(encoding="utf-8")
        assert "name: GOOGLE_CLOUD_PROJECT, value: my-project}" in path.read_text(encoding="utf-8")
        assert manifest["kind"].lower() == call.words[1].removesuffix("s")
    elif call.words[2] == "execute":
        [job] = read_all(DEPLOY / "cloudrun" / "migrate-job.yaml")
        assert call.words[3] == job["metadata"]["name"]
    else:
        assert call.words[:2] == ["scheduler", "jobs"]
        assert "--project=my-project" in call.words


CHECKS = {"docker": check_docker, "kind": check_kind, "kubectl": check_kubectl, "gcloud": check_gcloud}


def test_cloud_run_is_given_the_service_last() -> None:
    """A service whose schema isn't there yet ends with 78, and its roll-out fails."""
    [(_, block)] = [each for each in run_as(STAND_INS) if each[0].endswith("cloud-run.md") and "gcloud" in each[1]]
    steps = re.findall(r"gcloud run (\w+ \w+)", block)
    assert steps == ["jobs replace", "jobs execute", "jobs replace", "services replace"]


# Compose's secrets


@in_blocks(SECRETS)
def test_the_secrets_that_are_made_are_the_ones_that_compose_reads(page: str, block: str, tmp_path: Path) -> None:
    shell(block.replace("/etc/berth", str(tmp_path / "secrets")))
    made = {path.name: path for path in (tmp_path / "secrets").iterdir()}
    assert made.keys() == compose()["secrets"].keys()
    assert all(len(path.read_text().strip()) == 64 and path.stat().st_mode & 0o004 for path in made.values())
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700


def test_the_page_for_operators_says_how_long_each_proxy_keeps_a_connection() -> None:
    rows = [
        line.strip("| ").split(" | ") for line in text_of("docs/operations.md").splitlines() if line.startswith("|")
    ]
    kept = {
        row[0]: row[1:]
        for row in rows
        if row[0] in {"AWS ALB", "nginx", "Traefik"} or row[0].startswith(("Google", "Envoy"))
    }
    assert len(kept) == 5
    for keeps, ours in kept.values():
        number, unit = re.findall(r"^(\d+) (s|h)", keeps)[0]
        assert int(re.findall(r"^\d+", ours)[0]) > int(number) * {"s": 1, "h": 3600}[unit]
