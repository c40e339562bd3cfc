"""FAST=off bends no package, and a version that a seam wasn't tested with switches that seam off: both serve."""

import re
import shutil
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.fast import TESTED
from tests.conftest import TEST_SETTINGS, StartService
from tests.support.service import ROOT, Service, run

SITE_PACKAGES = Path(sysconfig.get_path("purelib"))
UNTESTED = "0.0.99"
BENT = [(seam, package) for seam, packages in TESTED.items() for package in packages]


def nothing(_: Path) -> None:
    """Another version, and the same inside."""


def rename_privates(package: Path) -> None:
    """As another version may: mysql_packets would find none of what it bends."""
    for file in package.glob("*.py"):
        text = file.read_text()
        file.write_text(
            re.sub(r"\b(_read_packet|_execute_command|_next_seq_id|_get_descriptions)\b", r"\1_of_old", text)
        )


def use_what_is_left_out(module: str, code: str) -> Callable[[Path], None]:
    """As another version may: what a lean import leaves out is needed."""

    def patch(package: Path) -> None:
        with (package / module).open("a") as file:
            file.write(f"\n\n{code}\n")

    return patch


PATCHES: dict[str, Callable[[Path], None]] = {
    "aiomysql": rename_privates,
    "databases": use_what_is_left_out("__init__.py", "from databases.core import text\nassert str(text('x')) == 'x'"),
    "coredis": use_what_is_left_out(
        "__init__.py", "assert not __import__('coredis.typing').typing.is_bearable(1, str)"
    ),
}


def patched(folder: Path, package: str) -> dict[str, Any]:
    """A copy of the package, patched, of a version that no seam was tested with, that is found first."""
    [info] = SITE_PACKAGES.glob(f"{package.lower()}-*.dist-info")
    (folder / f"{package}-{UNTESTED}.dist-info").mkdir()
    metadata = (info / "METADATA").read_text(encoding="utf-8")
    metadata = re.sub("^Version: .*$", f"Version: {UNTESTED}", metadata, count=1, flags=re.MULTILINE)
    (folder / f"{package}-{UNTESTED}.dist-info/METADATA").write_text(metadata, encoding="utf-8")
    copy = folder / package.lower()
    if package in PATCHES:
        shutil.copytree(SITE_PACKAGES / copy.name, copy, ignore=shutil.ignore_patterns("__pycache__"))
        PATCHES[package](copy)
    return {"PYTHONPATH": str(folder), "FAST": "on"}


def use(service: Service) -> None:
    """What touches each seam: the database, Redis, answers."""
    account = service.sign_up()
    for _ in range(2):
        answer = service.client.get("/v1/auth/me", headers=account.headers)
        assert answer.json()["username"] == account.username
    assert len(service.client.get("/v1/auth/sessions", headers=account.headers).json()["items"]) == 1
    taken = {"username": account.username, "email": "another@example.com", "password": "correct horse"}
    assert service.client.post("/v1/auth/register", json=taken).status_code == 409
    assert service.client.get("/health/ready").json()["status"] == "ok"


@pytest.mark.parametrize("value", ["off", "OFF"])
def test_fast_off_serves(start_service: StartService, backend: str, value: str) -> None:
    service = start_service(backend, FAST=value)
    use(service)
    assert service.log(severity="WARNING") == []
    assert service.stop() == 0


def loaded(fast: str) -> set[str]:
    """The modules of a process that uses MySQL and Redis."""
    code = """
import sys, app, infra.redis.client, settings
from infra.sql.mysql_driver import MySQLDriver
MySQLDriver(settings.load(), "127.0.0.1", 3306)
print(*sys.modules)
"""
    env = {**TEST_SETTINGS, "MYSQL_HOST": "127.0.0.1", "MYSQL_PASSWORD": "x", "LOGNAME": "x", "FAST": fast}
    done = run("-c", code, env=env)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_fast_off_imports_packages_whole_and_no_seam_into_mysql() -> None:
    whole = {"sqlalchemy", "beartype", "marshmallow.validate"}
    assert whole | {"aiomysql"} <= loaded("off")
    assert "infra.fast.mysql_packets" not in loaded("off")
    assert "infra.fast.mysql_packets" in loaded("on")
    assert not whole & loaded("on")


@pytest.mark.parametrize(("seam", "package"), BENT, ids=[package for _, package in BENT])
def test_an_untested_version_switches_its_seam_off_with_one_warning_and_the_service_serves(
    start_service: StartService, tmp_path: Path, seam: str, package: str
) -> None:
    service = start_service("mysql+redis", **patched(tmp_path, package))
    use(service)
    [warning] = service.log(severity="WARNING")
    for named in (seam, package, UNTESTED, TESTED[seam][package]):
        assert named in warning["message"]


def test_the_versions_that_are_locked_are_those_that_the_seams_were_tested_with() -> None:
    locked = dict(
        re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert {package: locked[package.lower()] for _, package in BENT} == {
        package: version for packages in TESTED.values() for package, version in packages.items()
    }


def test_a_seam_that_is_used_over_what_it_does_not_know_fails(tmp_path: Path) -> None:
    """Or the patches above would show nothing."""
    for package in PATCHES:
        folder = tmp_path / package
        folder.mkdir()
        env = {**patched(folder, package), **TEST_SETTINGS, "LOGNAME": "x"}
        shutil.rmtree(folder / f"{package}-{UNTESTED}.dist-info")
        statement = {
            "aiomysql": "from infra.fast.mysql_packets import Connection; Connection._execute_command",
            "databases": "import infra.sql.backend",
            "coredis": "import infra.redis.client",
        }[package]
        assert run("-c", statement, env=env).returncode == 1, package
