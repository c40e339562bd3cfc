"""deploy/cloudrun: the fields that Cloud Run's contract names, in step with the settings.

https://cloud.google.com/run/docs/reference/yaml/v1, https://cloud.google.com/run/docs/container-contract
"""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from settings import VARIABLES
from tests.support.manifests import (
    DEPLOY,
    IMPORT_SECONDS,
    SERVE,
    Manifest,
    Workload,
    cores,
    is_known,
    mib,
    mib_at_most,
    read_all,
    seconds_to_stop,
    settings_from,
    workloads,
)

SECONDS_TO_STOP = 10  # after SIGTERM
STARTUP_SECONDS = 240  # a startup probe's failureThreshold x periodSeconds, at most
FILES = [
    "service.yaml",
    "migrate-job.yaml",
    "purge-job.yaml",  # only with accounts or events
]
PLACEHOLDERS = {"YOUR_PROJECT", "YOUR_REGION", "YOUR_REDIS", "YOUR_TAG"}
# Knows one job, in the file JOB, and refuses what the real one refuses.
GCLOUD = """#!/bin/sh
case "$*" in
*" describe "*) test -e "$JOB" || exit 1;;
*" create "*) test ! -e "$JOB" || { echo ALREADY_EXISTS >&2; exit 1; };;
*" update "*) test -e "$JOB" || { echo NOT_FOUND >&2; exit 1; };;
esac
case "$*" in *" create "* | *" update "*) printf '%s\\n' "$@" > "$JOB";; esac
"""


def read(file: str) -> Manifest:
    [manifest] = read_all(DEPLOY / "cloudrun" / file)
    return manifest


def workload(file: str) -> Workload:
    [found] = workloads([read(file)])
    return found


def annotations(file: str) -> dict[str, str]:
    found: dict[str, str] = read(file)["spec"]["template"]["metadata"]["annotations"]
    return found


@pytest.fixture(params=FILES)
def file(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_the_manifests_are_of_the_kinds_that_gcloud_replaces() -> None:
    kinds = {each: (read(each)["apiVersion"], read(each)["kind"]) for each in FILES}
    assert kinds == {
        "service.yaml": ("serving.knative.dev/v1", "Service"),
        "migrate-job.yaml": ("run.googleapis.com/v1", "Job"),
        "purge-job.yaml": ("run.googleapis.com/v1", "Job"),  # only with accounts or events
    }


def test_berth_takes_the_variables(file: str, tmp_path: Path) -> None:
    settings = settings_from(workload(file).variables, tmp_path)
    assert settings.sys_env == "prod"
    assert settings.google_cloud_project == "YOUR_PROJECT"


def test_every_secret_comes_from_secret_manager(file: str) -> None:
    for variable in workload(file).container["env"]:
        secret = f"berth-{variable['name'].lower().replace('_', '-')}"
        if file == "migrate-job.yaml":
            secret = secret.replace("mysql-password", "mysql-migrate-password")
        if "valueFrom" in variable:
            assert variable["valueFrom"] == {"secretKeyRef": {"name": secret, "key": "latest"}}
        else:
            assert not re.search("PASSWORD|SECRET|TOKEN", variable["name"])


def test_a_key_that_is_to_come_or_go_has_a_secret_of_its_own() -> None:
    assert {"SECRET_KEY", "SECRET_KEY_PREVIOUS"} <= workload("service.yaml").variables.keys()


def test_the_image_is_the_one_that_was_pushed_and_runs_a_command_that_there_is(file: str) -> None:
    container = workload(file).container
    assert container["image"] == "YOUR_REGION-docker.pkg.dev/YOUR_PROJECT/berth/berth:YOUR_TAG"
    assert is_known(container.get("command", SERVE))


def test_mysql_is_reached_through_the_socket_that_cloud_sql_mounts(file: str, tmp_path: Path) -> None:
    instance = annotations(file)["run.googleapis.com/cloudsql-instances"]
    assert settings_from(workload(file).variables, tmp_path).mysql_unix_socket == f"/cloudsql/{instance}"


def test_who_migrates_is_a_user_of_its_own(file: str, tmp_path: Path) -> None:
    username = settings_from(workload(file).variables, tmp_path).mysql_username
    serves = VARIABLES["MYSQL_USERNAME"].default
    assert username == (f"{serves}_migrate" if file == "migrate-job.yaml" else serves)


def test_redis_is_spoken_to_by_verified_tls(file: str, tmp_path: Path) -> None:
    """MySQL by Google's proxy, which is what answers on the socket."""
    work = workload(file)
    settings = settings_from(work.variables, tmp_path)
    assert settings.redis_ssl
    assert settings.redis_ssl_ca
    assert work.secret_keys == {("berth-redis-ca", "latest")}


def test_redis_is_reached_in_the_vpc(file: str) -> None:
    [interface] = json.loads(annotations(file)["run.googleapis.com/network-interfaces"])
    assert interface.keys() == {"network", "subnetwork"}
    assert annotations(file)["run.googleapis.com/vpc-access-egress"] == "private-ranges-only"


def test_the_second_generation_has_the_memory_that_it_and_berth_need(file: str, tmp_path: Path) -> None:
    work = workload(file)
    limits = work.container["resources"]["limits"]
    assert annotations(file)["run.googleapis.com/execution-environment"] == "gen2"
    requests = work.pod.get("containerConcurrency", 1)
    needed = mib_at_most(settings_from(work.variables, tmp_path), cores(limits["cpu"]), requests)
    assert mib(limits["memory"]) >= max(512, needed)


def test_the_service_starts_fast_and_keeps_its_cpu_between_requests() -> None:
    found = annotations("service.yaml")
    assert found["run.googleapis.com/startup-cpu-boost"] == "true"
    assert found["run.googleapis.com/cpu-throttling"] == "false"
    assert int(found["autoscaling.knative.dev/minScale"]) >= 1


def test_the_services_limits_fit_berths(tmp_path: Path) -> None:
    work = workload("service.yaml")
    settings = settings_from(work.variables, tmp_path)
    assert work.pod["containerConcurrency"] <= settings.max_concurrency
    assert work.pod["timeoutSeconds"] > settings.request_timeout
    assert work.container["ports"] == [{"name": "http1", "containerPort": settings.port}]
    assert not {"PORT", "K_SERVICE", "K_REVISION"} & work.variables.keys()  # Cloud Run's own
    assert seconds_to_stop(settings) < SECONDS_TO_STOP


def test_the_probes_are_http_and_as_patient_as_startup_timeout(tmp_path: Path) -> None:
    work = workload("service.yaml")
    startup, liveness = work.container["startupProbe"], work.container["livenessProbe"]
    assert startup["httpGet"] == {"path": "/health/startup"}
    assert liveness["httpGet"] == {"path": "/health/live"}
    patience = startup["failureThreshold"] * startup["periodSeconds"]
    timeout = settings_from(work.variables, tmp_path).startup_timeout
    assert timeout + IMPORT_SECONDS < patience <= STARTUP_SECONDS
    assert all(probe["timeoutSeconds"] <= probe["periodSeconds"] for probe in (startup, liveness))


def test_a_job_logs_as_the_service_does(tmp_path: Path) -> None:
    service = workload("service.yaml").variables | {"K_SERVICE": "berth"}
    for each in FILES[1:]:
        job = settings_from(workload(each).variables, tmp_path)
        assert job.log_format == settings_from(service, tmp_path).log_format == "gcp"


def test_the_scheduler_runs_the_purge_job() -> None:
    script = (DEPLOY / "cloudrun/scheduler.sh").read_text(encoding="utf-8")
    assert f"/jobs/{read('purge-job.yaml')['metadata']['name']}:run" in script
    assert read("purge-job.yaml")["spec"]["template"]["spec"]["template"]["spec"]["timeoutSeconds"] <= 3600


def test_the_scheduler_is_set_up_as_often_as_one_likes(tmp_path: Path) -> None:
    job, program = tmp_path / "job", tmp_path / "gcloud"
    program.write_text(GCLOUD)
    program.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "JOB": str(job)}
    for verb in ("create", "update", "update"):
        command = [str(DEPLOY / "cloudrun/scheduler.sh"), "a-project", "a-region"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        given = job.read_text().splitlines()
        assert given[:5] == ["scheduler", "jobs", verb, "http", "berth-purge"]
        assert {"--project=a-project", "--location=a-region"} < set(given)


def test_a_placeholder_is_part_of_no_variables_name(file: str) -> None:
    """`sed s/PROJECT/.../` once renamed GOOGLE_CLOUD_PROJECT."""
    assert set(re.findall(r"YOUR_\w+", (DEPLOY / "cloudrun" / file).read_text(encoding="utf-8"))) == PLACEHOLDERS
    for name in workload(file).variables:
        assert not any(placeholder in name for placeholder in PLACEHOLDERS)
