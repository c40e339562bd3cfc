"""compose.yaml: valid, complete without preparation, hardened, and in step with the settings."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from settings import VARIABLES
from tests.support.manifests import (
    ROOT,
    SECRETS,
    SERVE,
    USER,
    Manifest,
    compose,
    is_known,
    mib,
    mib_at_most,
    seconds_to_stop,
    settings_from,
)
from tests.support.servers import SEARCH, MariaDB, free_port, program, wait_until
from tests.support.service import Service, run_app

BERTHS = ["app", "migrate"]
PAGE = (ROOT / "docs/deployment/compose.md").read_text(encoding="utf-8")
# What `.env` can't change: where the containers listen and are, and the secrets, which are files.
COMPOSES_OWN = {"HOST", "PORT", "MYSQL_HOST", "MYSQL_PORT", "REDIS_HOST", "REDIS_PORT"}
SECRET_FILES = {
    "MYSQL_PASSWORD",
    "REDIS_PASSWORD",
    "SECRET_KEY",
}


def service(name: str) -> Manifest:
    found: Manifest = compose()["services"][name]
    return found


def variables(name: str) -> dict[str, str]:
    found: dict[str, str] = service(name)["environment"]
    return found


def seconds(duration: str) -> float:
    return float(duration.removesuffix("s"))


def test_the_compose_schema_takes_it() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", BERTHS)
def test_berth_takes_its_variables(name: str, tmp_path: Path) -> None:
    assert settings_from(variables(name), tmp_path).sys_env == "dev"


def test_a_first_up_finds_every_file_that_it_needs() -> None:
    for secret in compose()["secrets"].values():
        assert (ROOT / secret["file"]).read_text(encoding="utf-8").strip()
    for each in compose()["services"].values():
        for file in each.get("env_file", []):
            assert file["required"] is False


def test_a_key_before_the_last_comes_from_the_shell_or_env() -> None:
    app = compose(SECRET_KEY_PREVIOUS="an older key")["services"]["app"]
    assert app["environment"]["SECRET_KEY_PREVIOUS"] == "an older key"


def test_the_example_secrets_are_ones_that_berth_takes(tmp_path: Path) -> None:
    env = variables("app")
    for name in SECRETS:
        if f"{name}_FILE" in env:
            secret = env.pop(f"{name}_FILE").rpartition("/")[2]
            env[name] = (ROOT / compose()["secrets"][secret]["file"]).read_text(encoding="utf-8").strip()
    settings_from(env, tmp_path)


def test_real_secrets_come_from_the_folder_that_berth_secrets_names() -> None:
    for name, secret in compose(BERTH_SECRETS="/etc/berth")["secrets"].items():
        assert secret["file"] == f"/etc/berth/{name}"


def test_every_secret_file_that_a_variable_names_is_given_to_its_service() -> None:
    for name, each in compose()["services"].items():
        named = [value for key, value in each.get("environment", {}).items() if key.endswith("_FILE")]
        assert {f"/run/secrets/{secret}" for secret in each.get("secrets", [])} >= set(named), name
        assert set(each.get("secrets", [])) <= compose()["secrets"].keys()


def from_dot_env(**lines: str) -> dict[str, object]:
    """What a container of Berth gets when these stand in `.env`: `environment` wins over `env_file`."""
    app = compose(**lines)["services"]["app"]
    assert app["env_file"] == [{"path": ".env", "required": False}]
    return {**lines, **app["environment"]}


@pytest.mark.parametrize("name", sorted(VARIABLES.keys() - COMPOSES_OWN - SECRET_FILES))
def test_a_variable_in_dot_env_reaches_berth(name: str) -> None:
    assert from_dot_env(**{name: "as it was set"})[name] == "as it was set"


def test_the_page_names_the_variables_that_dot_env_does_not_change() -> None:
    kept = {name for name in VARIABLES if from_dot_env(**{name: "as it was set"})[name] != "as it was set"}
    files = {name for name in VARIABLES if f"{name}_FILE" in variables("app")}
    assert (kept, files) == (COMPOSES_OWN, SECRET_FILES)
    [told] = re.findall(r"All of them but (.*?):", PAGE, re.DOTALL)
    assert set(re.findall("[A-Z_]{4,}", told)) == COMPOSES_OWN | SECRET_FILES


def test_the_database_and_its_user_are_made_as_dot_env_names_them() -> None:
    services = compose(MYSQL_DATABASE="harbour", MYSQL_USERNAME="master")["services"]
    made = services["mysql"]["environment"]
    assert (made["MYSQL_DATABASE"], made["MYSQL_USER"]) == ("harbour", "master")


def test_watching_builds_anew_when_what_the_image_is_made_of_changes() -> None:
    watched = service("app")["develop"]["watch"]
    # Not `sync`: that writes into the container, whose root is read-only.
    assert {each["action"] for each in watched} == {"rebuild"}
    let_in = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(each["path"] for each in watched) == sorted(let_in)


@pytest.mark.parametrize("name", BERTHS)
def test_berth_runs_the_image_that_is_built_here_on_a_read_only_root(name: str) -> None:
    each = service(name)
    assert (each["image"], each["build"], each["pull_policy"]) == ("berth", ".", "build")
    assert each["read_only"] is True
    assert is_known(each.get("command", SERVE))


def test_the_image_has_the_user_the_port_and_the_command_that_the_manifests_count_on(tmp_path: Path) -> None:
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    assert f"USER {USER}:{USER}" in lines
    assert f"EXPOSE {settings_from(variables('app'), tmp_path).port}" in lines
    assert f"CMD {json.dumps(SERVE)}" in lines


def test_berth_starts_after_the_servers_and_the_migration() -> None:
    assert service("app")["depends_on"] == {
        "migrate": {"condition": "service_completed_successfully"},
        "mysql": {"condition": "service_healthy"},
        "redis": {"condition": "service_healthy"},
    }
    assert service("migrate")["depends_on"] == {"mysql": {"condition": "service_healthy"}}
    assert service("migrate")["restart"] == "no"
    assert all("healthcheck" in service(name) for name in ("mysql", "redis"))


@pytest.mark.parametrize("name", compose()["services"])
def test_every_container_is_confined_and_its_logs_do_not_grow_for_ever(name: str) -> None:
    each = service(name)
    assert each["cap_drop"] == ["ALL"]
    assert "cap_add" not in each
    assert each["security_opt"] == ["no-new-privileges:true"]
    assert each["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
    assert each["logging"] == {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}}
    assert name == "migrate" or each["restart"] == "unless-stopped"


def test_only_berth_has_a_published_port_and_only_on_this_machine(tmp_path: Path) -> None:
    port = settings_from(variables("app"), tmp_path).port
    published = {name: each["ports"] for name, each in compose()["services"].items() if "ports" in each}
    assert published == {"app": [f"127.0.0.1:8000:{port}"]}
    assert compose(BERTH_LISTEN="0.0.0.0:80")["services"]["app"]["ports"] == [f"0.0.0.0:80:{port}"]


def test_mysql_and_redis_are_reached_by_name_and_have_no_way_out(tmp_path: Path) -> None:
    settings = settings_from(variables("app"), tmp_path)
    assert (settings.mysql_host, settings.redis_host) == ("mysql", "redis")
    assert service("mysql")["networks"] == service("redis")["networks"] == ["data"]
    assert compose()["networks"]["data"] == {"internal": True}
    assert "data" in service("app")["networks"]


USERS = """
docker_process_sql() {{ {client} --no-defaults --socket={socket} --user=root "$@"; }}
. {script}
"""


def test_mysql_makes_one_user_that_serves_and_one_that_migrates(tmp_path: Path) -> None:
    """By the script that its image sources, whose one function runs SQL as root."""
    [script] = [
        volume.split(":")[0] for volume in service("mysql")["volumes"] if "/docker-entrypoint-initdb.d/" in volume
    ]
    app, migrate, mysql = (variables(name) for name in ("app", "migrate", "mysql"))
    with MariaDB() as server:
        name, password = mysql["MYSQL_DATABASE"] + "_x", "it's a \\ password"
        server.sql(f"CREATE DATABASE {name}")
        server.sql(f"DROP USER {server.username}")
        server.sql(f"CREATE USER {server.username} IDENTIFIED BY 'a password'")
        pattern = name.replace("_", "\\_")  # as the image has it
        server.sql(f"GRANT ALL ON `{pattern}`.* TO {server.username}")
        env = {"PATH": SEARCH, "MYSQL_DATABASE": name, "MYSQL_USER": mysql["MYSQL_USER"], "MIGRATE_PASSWORD": password}
        code = USERS.format(client=program("mariadb"), socket=server.unix_socket, script=ROOT / script)
        done = subprocess.run(["bash", "-ec", code], env=env, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        env = {"SYS_ENV": "test", **server.environment(name)}
        serves = env | {"MYSQL_USERNAME": app["MYSQL_USERNAME"], "MYSQL_PASSWORD": "a password"}
        migrates = env | {"MYSQL_USERNAME": migrate["MYSQL_USERNAME"], "MYSQL_PASSWORD": password}
        assert "CREATE command denied" in run_app("migrate", env={**serves, "STARTUP_TIMEOUT": "0.5"}).stdout
        assert run_app("migrate", env=migrates).returncode == 0
        with Service(serves) as started:
            assert started.client.get("/health/ready").status_code == 200


def test_mysql_makes_the_account_that_berth_logs_in_as(tmp_path: Path) -> None:
    settings, mysql = settings_from(variables("app"), tmp_path), variables("mysql")
    assert (mysql["MYSQL_DATABASE"], mysql["MYSQL_USER"]) == (settings.mysql_database, settings.mysql_username)
    assert mysql["MYSQL_PASSWORD_FILE"] == variables("app")["MYSQL_PASSWORD_FILE"]
    assert settings.mysql_ssl_mode == "required"  # caching_sha2_password without TLS needs one more package


def test_the_stop_grace_period_lets_the_drain_end(tmp_path: Path) -> None:
    assert seconds(service("app")["stop_grace_period"]) > seconds_to_stop(settings_from(variables("app"), tmp_path))


@pytest.mark.parametrize("name", BERTHS)
def test_the_memory_limit_holds_what_berth_may_need(name: str, tmp_path: Path) -> None:
    limits = service(name)["deploy"]["resources"]["limits"]
    assert mib(limits["memory"] + "i") > mib_at_most(settings_from(variables(name), tmp_path), float(limits["cpus"]))


def test_redis_starts_by_its_command_asks_for_the_password_and_passes_its_health_check() -> None:
    """The command and the check themselves, but for the secret's path and a port of our own."""
    secret, port = ROOT / compose()["secrets"]["redis_password"]["file"], free_port()

    def here(script: str) -> list[str]:
        return ["sh", "-c", script.replace("$$", "$").replace("/run/secrets/redis_password", str(secret))]

    *_, start = service("redis")["command"]
    kind, check = service("redis")["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    check = check.replace("redis-cli", f"redis-cli -p {port}")
    process = subprocess.Popen(here(f"{start} --bind 127.0.0.1 --port {port}"), stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: subprocess.run(here(check), check=False).returncode == 0, "redis")
        refused = subprocess.run([program("redis-cli"), "-p", str(port), "GET", "x"], capture_output=True, check=False)
        assert b"NOAUTH" in refused.stdout
    finally:
        process.terminate()
        assert process.wait(10) == 0


def test_the_log_collector_comes_only_with_its_profile_and_reads_the_projects_configuration() -> None:
    profiles = {name: each["profiles"] for name, each in compose()["services"].items() if "profiles" in each}
    assert profiles == {"logs": ["logs"]}
    mounts = [volume.split(":")[:2] for volume in service("logs")["volumes"]]
    [(source, target)] = [mount for mount in mounts if mount[0].startswith("./")]
    assert service("logs")["entrypoint"][-1] == target
    assert (ROOT / source).is_file()
