"""What a release is made from: locked packages and their bill of materials, pinned actions, one version."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from ruamel.yaml import YAML

from settings import VERSION
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


def test_the_version_is_the_same_wherever_it_is_written() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        assert tomllib.load(file)["project"]["version"] == VERSION
    assert f"\nARG VERSION={VERSION}\n" in (ROOT / "Dockerfile").read_text()


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
