"""What a release is made from: locked packages and their bill of materials, pinned actions, one version."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from ruamel.yaml import YAML

from settings import VERSION
from tests.support.servers import program
from tests.support.service import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
LOCKED = re.compile(r"^([a-z0-9-]+)==(\S+) \\\n((?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE)


@pytest.fixture(scope="module")
def bill(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("sbom") / "sbom.json"
    subprocess.run(["make", "sbom", f"SBOM={path}"], cwd=ROOT, check=True, timeout=60)
    return path.read_text()


def test_the_bill_of_materials_is_valid_cyclonedx(bill: str) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill) is None


def test_the_bill_of_materials_lists_every_locked_package_with_its_hashes(bill: str) -> None:
    locked = LOCKED.findall((ROOT / "requirements.txt").read_text())
    content = json.loads(bill)
    listed = [
        (part["name"], part["version"], sorted(digest["content"] for digest in part["externalReferences"][0]["hashes"]))
        for part in content["components"]
    ]
    assert len(locked) > 20
    assert sorted(listed) == sorted(
        (name, version, sorted(re.findall("[0-9a-f]{64}", hashes))) for name, version, hashes in locked
    )
    assert (content["metadata"]["component"]["name"], content["metadata"]["component"]["version"]) == ("berth", VERSION)


VERSIONED = ["Dockerfile", "compose.yaml", "pyproject.toml", "settings.py", "README*.md", "deploy/**/*", "docs/**/*.md"]
WRITTEN = re.compile(
    r"(?:^VERSION = \"|^version = \"|ARG VERSION=|/[a-z0-9-]*berth:|newTag: |refs/tags/v)(\d[\w.-]*\w)", re.MULTILINE
)


def versions(root: Path) -> dict[str, set[str]]:
    """Of ours, as each file has them."""
    paths = [path for pattern in VERSIONED for path in root.glob(pattern) if path.suffix != ".png" and path.is_file()]
    found = {str(path.relative_to(root)): set(WRITTEN.findall(path.read_text(encoding="utf-8"))) for path in paths}
    return {path: written for path, written in found.items() if written}


def test_the_version_is_the_same_wherever_it_is_written() -> None:
    found = versions(ROOT)
    assert {"Dockerfile", "pyproject.toml", "settings.py", "deploy/kubernetes/base/kustomization.yaml"} <= set(found)
    assert [(path, written) for path, written in found.items() if written != {VERSION}] == []


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for path in (ROOT / name for name in ("Dockerfile", "compose.yaml", "pyproject.toml", "settings.py", "Makefile")):
        shutil.copy(path, tmp_path)
    for path in (*ROOT.glob("README*.md"), ROOT / "CHANGELOG.md"):
        shutil.copy(path, tmp_path)
    for name in (".ci", "deploy", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path


def release(folder: Path, version: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "release", f"VERSION={version}"]
    return subprocess.run(command, cwd=folder, capture_output=True, check=False, text=True, timeout=60)


@pytest.mark.parametrize("unreleased", [True, False])
def test_a_release_changes_the_version_wherever_it_is_written_and_names_a_section(copy: Path, unreleased: bool) -> None:
    changes = copy / "CHANGELOG.md"
    text = re.sub("\n## Unreleased\n", "\n## 99.0.0\n", changes.read_text(encoding="utf-8"))
    changes.write_text(
        text.replace("\n## ", "\n## Unreleased\n\n- new\n\n## ", 1) if unreleased else text, encoding="utf-8"
    )
    old = changes.read_text(encoding="utf-8")
    others = f"some-package=={VERSION}\n"
    with (copy / "README.md").open("a", encoding="utf-8") as readme:
        readme.write(others)
    assert release(copy, "99.1.0").returncode == 0
    assert versions(copy) == {key: {"99.1.0"} for key in versions(ROOT)}
    assert others in (copy / "README.md").read_text(encoding="utf-8")
    head, _, rest = old.partition("\n## ")
    left = rest.removeprefix("Unreleased\n") if unreleased else f"\n## {rest}"
    assert changes.read_text(encoding="utf-8") == f"{head}\n## 99.1.0 - unreleased\n{left}"


@pytest.mark.parametrize("version", ["", "1", "1.2", "v1.2.3", "1.2.3 x", VERSION])
def test_what_is_no_new_version_is_not_released(version: str, copy: Path) -> None:
    done = release(copy, version)
    assert done.returncode != 0
    assert "usage: make release VERSION=X.Y.Z" in done.stderr
    assert versions(copy) == versions(ROOT)


def test_the_release_workflow_compares_the_tag_with_the_version() -> None:
    workflow = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    [script] = re.findall(r"version=\$\((.*)\)\n", workflow)
    env = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-c", script], cwd=ROOT, env=env, capture_output=True, check=True, text=True, timeout=60
    )
    assert done.stdout.strip() == VERSION


# Images by digest


DIGEST = f"sha256:{'0123456789abcdef' * 4}"
REGISTRY = """#!/bin/sh
[ "$*" = "buildx imagetools inspect --format {{.Manifest.Digest}} $6" ] || exit 1
echo sha256:$(echo $6 | sha256sum | cut -d ' ' -f 1)
"""


def pin(folder: Path, *arguments: str, registry: str = REGISTRY) -> subprocess.CompletedProcess[str]:
    (folder / "docker").write_text(registry)
    (folder / "docker").chmod(0o755)
    env = {"PATH": f"{folder}:{os.environ['PATH']}"}
    return subprocess.run(
        [".ci/pin", *arguments], cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=60
    )


def test_a_release_names_every_image_by_its_digest(copy: Path) -> None:
    done = pin(copy, "ghcr.io/harbour/berth", DIGEST)
    assert (done.returncode, done.stderr) == (0, "")
    for folder in ("overlays/prod", "overlays/dev", "../knative"):
        images = re.findall(r"image: (\S+)", "\n".join(map(str, rendered(copy / "deploy/kubernetes" / folder))))
        own = {image for image in images if "berth" in image}
        assert own == ({"berth:dev"} if folder == "overlays/dev" else {f"ghcr.io/harbour/berth@{DIGEST}"})
        assert all(re.search(r"@sha256:[0-9a-f]{64}$", image) for image in set(images) - own)
    services = YAML(typ="safe").load(copy / "compose.yaml")["services"]
    others = [each["image"] for each in services.values() if each["image"] != "berth"]
    assert len(others) == 3
    assert all(re.fullmatch(r"[a-z/-]+:[0-9.]+@sha256:[0-9a-f]{64}", image) for image in others)


def rendered(folder: Path) -> list[str]:
    command = [program("kubectl"), "kustomize", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()


@pytest.mark.parametrize("digest", ["", "latest", "0.1.0"])
def test_what_is_no_digest_is_not_put_into_the_manifests(copy: Path, digest: str) -> None:
    assert pin(copy, "ghcr.io/harbour/berth", digest).returncode == 64


def test_an_image_that_the_registry_does_not_know_ends_it(copy: Path) -> None:
    assert pin(copy, "ghcr.io/harbour/berth", DIGEST, registry="#!/bin/sh\nexit 1\n").returncode == 1


def test_the_release_builds_on_the_base_image_of_the_dockerfile() -> None:
    workflow = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    [base] = re.findall(r"ARG PYTHON_IMAGE=(\S+)", (ROOT / "Dockerfile").read_text())
    assert f"base={base}\n" in workflow
    assert "PYTHON_IMAGE=${{ env.PYTHON_IMAGE }}\n" in workflow
    assert '.ci/pin "$IMAGE" "$DIGEST"\n' in workflow


# What pip-audit says


OFFLINE, VULNERABLE = "Failed to resolve host", "Found 1 known vulnerability in 1 package"


@pytest.mark.parametrize(
    ("audit", "required", "passes", "said"),
    [
        ("exit 0", "", True, ""),
        ("exit 0", "1", True, ""),
        (f"echo {OFFLINE}; exit 1", "", True, f"pip-audit: NOT CHECKED: {OFFLINE}\n"),
        (f"echo {OFFLINE}; exit 1", "1", False, f"pip-audit: NOT CHECKED: {OFFLINE}\n"),
        (f"echo {VULNERABLE}; exit 1", "", False, f"{VULNERABLE}\n"),
        (f"echo {VULNERABLE}; exit 1", "1", False, f"{VULNERABLE}\n"),
    ],
)
def test_what_pip_audit_could_not_check_is_said_and_fails_where_that_was_asked_for(
    copy: Path, audit: str, required: str, passes: bool, said: str
) -> None:
    tools = copy / "tools-of-the-test"
    tools.mkdir()
    for name in ("ruff", "mypy", "lint-imports", "hadolint", "pip-audit"):
        (tools / name).write_text(f"#!/bin/sh\n{audit if name == 'pip-audit' else 'exit 0'}\n")
        (tools / name).chmod(0o755)
    command = ["make", "--old-file=.venv/dev", "--old-file=.venv/run", f"BIN={tools}", "lint"]
    env = {"PATH": os.environ["PATH"], "AUDIT_REQUIRED": required}
    done = subprocess.run(command, cwd=copy, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode == 0, done.stdout) == (passes, said)


def test_continuous_integration_asks_for_the_audit() -> None:
    [steps] = [job["steps"] for job in YAML(typ="safe").load(ROOT / ".github/workflows/ci.yml")["jobs"].values()]
    assert steps[-1]["env"]["AUDIT_REQUIRED"] == "1"


def test_the_workflows_are_what_github_takes() -> None:
    check = [str(Path(sys.executable).parent / "check-jsonschema"), "--builtin-schema", "vendor.github-workflows"]
    done = subprocess.run([*check, *WORKFLOWS], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_pinned_by_commit(workflow: Path) -> None:
    actions = re.findall(r"uses: (?!\./)(.*)", workflow.read_text())
    assert actions
    for action in actions:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)


def test_only_the_job_that_releases_may_do_more_than_read() -> None:
    workflows: dict[str, Any] = {path.name: YAML(typ="safe").load(path) for path in WORKFLOWS}
    more = {
        (name, job): set(content["permissions"])
        for name, workflow in workflows.items()
        for job, content in workflow["jobs"].items()
        if "permissions" in content
    }
    assert all(workflow["permissions"] == {"contents": "read"} for workflow in workflows.values())
    assert more == {("release.yml", "image"): {"contents", "packages", "id-token"}}
