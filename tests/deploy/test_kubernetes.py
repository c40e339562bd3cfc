"""deploy/kubernetes and deploy/knative, rendered by kustomize: valid, restricted, and in step with the settings."""

import json
import os
import shutil
from ipaddress import ip_network
from pathlib import Path

import kubernetes_validate
import pytest
from starlette.routing import Route

from app import ROUTES
from handlers.health import PING_TIMEOUT
from settings import VARIABLES, VERSION
from tests.support.manifests import (
    DEPLOY,
    IMAGE,
    IMPORT_SECONDS,
    ROOT,
    SERVE,
    USER,
    Manifest,
    cores,
    find,
    is_known,
    mib,
    mib_at_most,
    pods,
    read_all,
    render,
    seconds_to_stop,
    server_of,
    settings_from,
    workloads,
)

OVERLAYS = ["kubernetes/overlays/dev", "kubernetes/overlays/prod"]
FOLDERS = [*OVERLAYS, "knative"]
PRODUCTION = ["kubernetes/overlays/prod", "knative"]
API_VERSIONS = ["1.31", "1.37"]  # the oldest that needs no change, and the newest that the package knows
KNATIVE = "serving.knative.dev/v1"
PATHS = [route.path for route in ROUTES if isinstance(route, Route)]


@pytest.fixture(scope="module", params=FOLDERS)
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    return render(request.param)


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> list[Manifest]:
    return render(request.param)


@pytest.fixture(scope="module")
def knative() -> Manifest:
    return next(each for each in render("knative") if each["apiVersion"] == KNATIVE)


# Validity


@pytest.mark.parametrize("version", API_VERSIONS)
def test_kubernetes_takes_every_manifest(manifests: list[Manifest], version: str) -> None:
    for manifest in manifests:
        if manifest["apiVersion"] != KNATIVE:
            kubernetes_validate.validate(manifest, version, strict=True)


def test_every_namespaced_manifest_is_in_its_overlays_namespace(manifests: list[Manifest]) -> None:
    [namespace] = [each["metadata"]["name"] for each in manifests if each["kind"] == "Namespace"]
    assert all(each["metadata"]["namespace"] == namespace for each in manifests if each["kind"] != "Namespace")


def test_every_name_refers_to_something_that_is_there(manifests: list[Manifest]) -> None:
    secrets = {each["metadata"]["name"] for each in [*manifests, *example_secrets()] if each["kind"] == "Secret"}
    for work in workloads(manifests):
        find(manifests, "ServiceAccount", work.pod["serviceAccountName"])
        assert {volume["secret"]["secretName"] for volume in work.pod["volumes"]} <= secrets


def example_secrets() -> list[Manifest]:
    return read_all(DEPLOY / "kubernetes/overlays/prod/secret.example.yaml")


# Settings


def test_berth_takes_the_variables_of_each_container(manifests: list[Manifest], tmp_path: Path) -> None:
    found = workloads(manifests)
    assert {work.name for work in found} == {
        "berth",
        "berth-migrate",
        "berth-purge",  # only with accounts or events
    }
    for work in found:
        settings_from(work.variables, tmp_path)


def test_the_secret_has_the_keys_that_are_read_from_it(manifests: list[Manifest]) -> None:
    secrets = [each for each in manifests if each["kind"] == "Secret"] or example_secrets()
    given = {(each["metadata"]["name"], key) for each in secrets for key in each.get("data") or each["stringData"]}
    for work in workloads(manifests):
        assert work.secret_keys <= given
    assert set().union(*(work.secret_keys for work in workloads(manifests))) == given


def test_who_migrates_is_a_user_of_its_own_whose_password_no_server_can_read(manifests: list[Manifest]) -> None:
    serves = VARIABLES["MYSQL_USERNAME"].default
    users = {work.name: work.variables.get("MYSQL_USERNAME", serves) for work in workloads(manifests)}
    assert users.pop("berth-migrate") == f"{serves}_migrate"
    assert set(users.values()) == {serves}
    for work in workloads(manifests):
        mounted = {volume["secret"]["secretName"] for volume in work.pod["volumes"]}
        assert any(name.startswith("berth-migrate") for name in mounted) == (work.name == "berth-migrate")


@pytest.mark.parametrize("folder", PRODUCTION)
def test_in_production_both_servers_are_spoken_to_by_verified_tls(folder: str, tmp_path: Path) -> None:
    for work in workloads(render(folder)):
        settings = settings_from(work.variables, tmp_path)
        assert (settings.mysql_ssl_mode, settings.redis_ssl) == ("verify_identity", True)
        assert settings.mysql_ssl_ca
        assert settings.redis_ssl_ca


@pytest.mark.parametrize("folder", PRODUCTION)
def test_the_lines_for_a_clients_certificate_work_as_they_are(folder: str, tmp_path: Path) -> None:
    text = (DEPLOY / folder / "settings.env").read_text(encoding="utf-8")
    lines = dict(line.removeprefix("# ").split("=") for line in text.splitlines() if line.startswith("# MYSQL_SSL_"))
    lines |= {name.replace("MYSQL", "REDIS"): value.replace("MYSQL", "REDIS") for name, value in lines.items()}
    for work in workloads(render(folder)):
        settings = settings_from(work.variables | lines, tmp_path)
        assert settings.mysql_ssl_key
        assert settings.redis_ssl_cert


def test_a_key_that_is_to_come_or_go_may_be_in_the_secret_and_need_not_be(manifests: list[Manifest]) -> None:
    [variable] = server_of(manifests).container["env"]
    assert variable["name"] == "SECRET_KEY_PREVIOUS"
    reference = variable["valueFrom"]["secretKeyRef"]
    [volume] = server_of(manifests).pod["volumes"]
    assert reference == {"name": volume["secret"]["secretName"], "key": "SECRET_KEY_PREVIOUS", "optional": True}


def test_the_overlays_are_what_their_names_say(tmp_path: Path) -> None:
    for folder, sys_env in zip(FOLDERS, ["dev", "prod", "prod"], strict=True):
        for work in workloads(render(folder)):
            assert settings_from(work.variables, tmp_path).sys_env == sys_env


def test_every_container_runs_a_command_that_there_is(manifests: list[Manifest]) -> None:
    for work in workloads(manifests):
        assert is_known(work.container.get("command", SERVE))
        assert "args" not in work.container


@pytest.mark.parametrize("folder", PRODUCTION)
def test_in_production_the_image_is_of_this_version(folder: str) -> None:
    assert {work.container["image"] for work in workloads(render(folder))} == {f"{IMAGE}:{VERSION}"}


def test_dev_runs_the_image_that_the_page_builds_and_loads_and_pulls_none_that_is_there() -> None:
    commands = (ROOT / "docs/deployment/kubernetes.md").read_text(encoding="utf-8")
    works = workloads(render("kubernetes/overlays/dev"))
    assert {(work.container["image"], work.container["imagePullPolicy"]) for work in works} == {
        ("berth:dev", "IfNotPresent")
    }
    assert "docker build -t berth:dev ." in commands
    assert "kind load docker-image berth:dev" in commands


def test_the_image_of_an_overlay_can_be_another_registrys(tmp_path: Path) -> None:
    shutil.copytree(DEPLOY / "kubernetes", tmp_path / "kubernetes")
    overlay = tmp_path / "kubernetes/overlays/dev"
    content = (overlay / "kustomization.yaml").read_text()
    content = content.replace("newName: berth\n", "newName: registry.example/berth\n").replace(
        "dev\nconfig", "v7\nconfig"
    )
    (overlay / "kustomization.yaml").write_text(content)
    assert {work.container["image"] for work in workloads(render(str(overlay)))} == {"registry.example/berth:v7"}


def test_no_environment_variable_comes_from_a_service(manifests: list[Manifest]) -> None:
    """Kubernetes would set MYSQL_PORT to tcp://... for a Service named mysql."""
    assert all(pod["enableServiceLinks"] is False for _, pod in pods(manifests))


# Pod Security Standards, restricted: https://kubernetes.io/docs/concepts/security/pod-security-standards/


def test_the_namespace_enforces_restricted(manifests: list[Manifest]) -> None:
    [namespace] = [each for each in manifests if each["kind"] == "Namespace"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_every_pod_is_restricted(manifests: list[Manifest]) -> None:
    for _, pod in pods(manifests):
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers", "ephemeralContainers"} & pod.keys()
        assert all(volume.keys() <= {"name", "secret", "configMap"} for volume in pod.get("volumes", []))
        for container in pod["containers"]:
            context = pod.get("securityContext", {}) | container["securityContext"]
            assert context["runAsNonRoot"] is True
            assert context["runAsUser"] > 0
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["seccompProfile"] == {"type": "RuntimeDefault"}
            assert not {"privileged", "procMount", "seLinuxOptions", "windowsOptions", "sysctls"} & context.keys()
            assert all("hostPort" not in port for port in container.get("ports", []))


def test_berth_runs_as_the_images_user_on_a_read_only_root_without_a_token(manifests: list[Manifest]) -> None:
    assert find(manifests, "ServiceAccount")["automountServiceAccountToken"] is False
    for work in workloads(manifests):
        context = work.pod.get("securityContext", {}) | work.container["securityContext"]
        assert (context["runAsUser"], context["runAsGroup"]) == (USER, USER)
        assert context["readOnlyRootFilesystem"] is True
        assert work.kind == "Service" or context["fsGroup"] == USER  # to read its secrets


# Probes, ports, grace


def test_probes_ask_the_route_of_their_name(manifests: list[Manifest]) -> None:
    server = server_of(manifests).container
    for probe, path in (("startup", "startup"), ("readiness", "ready"), ("liveness", "live")):
        assert server[f"{probe}Probe"]["httpGet"]["path"] == f"/health/{path}"
        assert f"/health/{path}" in PATHS


def test_the_startup_probe_is_as_patient_as_startup_timeout(manifests: list[Manifest], tmp_path: Path) -> None:
    server = server_of(manifests)
    probe = server.container["startupProbe"]
    patience = probe["periodSeconds"] * probe["failureThreshold"]
    assert patience > settings_from(server.variables, tmp_path).startup_timeout + IMPORT_SECONDS


def test_the_readiness_probe_waits_for_its_pings(overlay: list[Manifest]) -> None:
    assert server_of(overlay).container["readinessProbe"]["timeoutSeconds"] > PING_TIMEOUT


def test_the_container_listens_where_the_service_and_the_policy_lead(overlay: list[Manifest], tmp_path: Path) -> None:
    server = server_of(overlay)
    [port] = server.container["ports"]
    assert port["containerPort"] == settings_from(server.variables, tmp_path).port
    assert find(overlay, "Service")["spec"]["ports"][0]["targetPort"] == port["name"]
    ingress = find(overlay, "NetworkPolicy")["spec"]["ingress"]
    assert [each["port"] for rule in ingress for each in rule["ports"]] == [port["containerPort"]]


def test_the_policy_lets_only_the_ingress_and_the_scraper_in(overlay: list[Manifest]) -> None:
    [rule] = find(overlay, "NetworkPolicy")["spec"]["ingress"]
    peers = [(each["namespaceSelector"]["matchLabels"], each["podSelector"]["matchLabels"]) for each in rule["from"]]
    assert peers == [
        ({"kubernetes.io/metadata.name": namespace}, {"app.kubernetes.io/name": name})
        for namespace, name in (("ingress-nginx", "ingress-nginx"), ("monitoring", "prometheus"))
    ]


def test_only_a_few_addresses_are_believed_to_forward(manifests: list[Manifest], tmp_path: Path) -> None:
    for work in workloads(manifests):
        believed = settings_from(work.variables, tmp_path).forwarded_allow_ips
        assert sum(ip_network(part).num_addresses for part in believed.split(",")) < 256


def test_the_policy_lets_out_what_the_settings_lead_to(overlay: list[Manifest], tmp_path: Path) -> None:
    rules = find(overlay, "NetworkPolicy")["spec"]["egress"]
    out = {each["port"] for rule in rules for each in rule["ports"]}
    for work in workloads(overlay):
        settings = settings_from(work.variables, tmp_path)
        assert out == {53, settings.mysql_port, settings.redis_port}


def test_the_grace_period_lets_the_drain_end(overlay: list[Manifest], tmp_path: Path) -> None:
    server = server_of(overlay)
    settings = settings_from(server.variables, tmp_path)
    assert settings.shutdown_delay >= 5  # the endpoint's removal takes a few seconds to reach every node
    assert settings.shutdown_timeout >= settings.request_timeout
    assert server.pod["terminationGracePeriodSeconds"] > seconds_to_stop(settings)


def test_a_rolling_update_takes_no_pod_away_before_another_serves(overlay: list[Manifest], tmp_path: Path) -> None:
    spec = find(overlay, "Deployment")["spec"]
    assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    server = server_of(overlay)
    assert spec["minReadySeconds"] > settings_from(server.variables, tmp_path).shutdown_delay
    assert "replicas" not in spec  # or each apply would undo the autoscaler's


def test_all_that_selects_pods_selects_the_servers(overlay: list[Manifest]) -> None:
    deployment = find(overlay, "Deployment")["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"] == labels
    assert find(overlay, "Service")["spec"]["selector"] == labels
    assert find(overlay, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    assert find(overlay, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] == "berth"
    spread = deployment["template"]["spec"]["topologySpreadConstraints"]
    assert [each["labelSelector"]["matchLabels"] for each in spread] == [labels, labels]
    policy = find(overlay, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"]
    for manifest, _ in pods(overlay):
        if manifest["metadata"]["name"].startswith("berth"):
            assert policy.items() <= manifest["metadata"]["labels"].items()


# Resources and jobs


def test_the_memory_limit_holds_what_berth_may_need(manifests: list[Manifest], tmp_path: Path) -> None:
    for work in workloads(manifests):
        limits = work.container["resources"]["limits"]
        settings = settings_from(work.variables, tmp_path)
        assert mib(limits["memory"]) > mib_at_most(settings, cores(limits["cpu"]))


def test_a_job_is_not_tried_again_after_a_wrong_setting(manifests: list[Manifest]) -> None:
    rules = find(manifests, "Job", "berth-migrate")["spec"]["podFailurePolicy"]["rules"]
    assert {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [os.EX_USAGE, os.EX_CONFIG]}} in rules


def test_clean_ups_do_not_overlap(manifests: list[Manifest]) -> None:
    spec = find(manifests, "CronJob", "berth-purge")["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["jobTemplate"]["spec"]["activeDeadlineSeconds"] < 3600


def test_the_dev_overlay_brings_the_servers_that_it_names(tmp_path: Path) -> None:
    manifests = render("kubernetes/overlays/dev")
    for work in workloads(manifests):
        settings = settings_from(work.variables, tmp_path)
        for host, port in ((settings.mysql_host, settings.mysql_port), (settings.redis_host, settings.redis_port)):
            assert find(manifests, "Service", str(host))["spec"]["ports"] == [{"port": port}]


def test_the_service_monitor_finds_the_service_and_its_token(tmp_path: Path) -> None:
    prod, component = (DEPLOY / "kubernetes" / name for name in ("overlays/prod", "components/servicemonitor"))
    content = {"resources": [os.path.relpath(prod, tmp_path)], "components": [os.path.relpath(component, tmp_path)]}
    (tmp_path / "kustomization.yaml").write_text(json.dumps(content))
    manifests = render(str(tmp_path))
    monitor, service = find(manifests, "ServiceMonitor"), find(manifests, "Service")
    [endpoint] = monitor["spec"]["endpoints"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
    token = endpoint["authorization"]["credentials"]
    assert token["name"] == example_secrets()[0]["metadata"]["name"]
    assert token["key"] in example_secrets()[0]["stringData"]


# Knative: https://knative.dev/docs/serving/


def test_knative_serves_it_in_place_of_the_deployment(knative: Manifest) -> None:
    kinds = [each["kind"] for each in render("knative")]
    assert not {"Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy"} & set(kinds)
    assert kinds.count("Service") == 1
    assert knative["spec"]["template"]["spec"].keys() <= {
        "containerConcurrency",
        "timeoutSeconds",
        "enableServiceLinks",
        "serviceAccountName",
        "containers",
        "volumes",
    }


def test_knatives_container_is_one_that_kubernetes_takes(knative: Manifest) -> None:
    spec = {name: knative["spec"]["template"]["spec"][name] for name in ("containers", "volumes")}
    port = spec["containers"][0]["ports"][0]["containerPort"]
    probes = {
        name: probe | {"httpGet": probe["httpGet"] | {"port": port}}  # which Knative fills in
        for name, probe in spec["containers"][0].items()
        if name.endswith("Probe")
    }
    pod = {"containers": [spec["containers"][0] | probes], "volumes": spec["volumes"]}
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "berth"}, "spec": pod}
    kubernetes_validate.validate(manifest, API_VERSIONS[-1], strict=True)


def test_knatives_limits_fit_berths(knative: Manifest, tmp_path: Path) -> None:
    server = server_of(render("knative"))
    settings = settings_from(server.variables, tmp_path)
    spec = server.pod
    assert spec["containerConcurrency"] <= settings.max_concurrency
    assert spec["timeoutSeconds"] > settings.request_timeout
    assert spec["timeoutSeconds"] > seconds_to_stop(settings)  # the pod's grace period
    assert server.container["ports"] == [{"containerPort": settings.port}]
    assert "PORT" not in server.variables  # Knative's own
    scale = knative["spec"]["template"]["metadata"]["annotations"]
    assert int(scale["autoscaling.knative.dev/min-scale"]) >= 1


# Metrics


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_service_monitor_finds_the_service_the_route_and_the_token(overlay: str, tmp_path: Path) -> None:
    shutil.copytree(DEPLOY / "kubernetes", tmp_path / "kubernetes")
    with (tmp_path / overlay / "kustomization.yaml").open("a") as kustomization:
        kustomization.write("components: [../../components/servicemonitor]\n")
    manifests = render(str(tmp_path / overlay))
    monitor, service = find(manifests, "ServiceMonitor"), find(manifests, "Service")
    [endpoint] = monitor["spec"]["endpoints"]
    credentials = endpoint["authorization"]["credentials"]
    secrets = [each for each in manifests if each["kind"] == "Secret"] or example_secrets()
    [secret] = [each for each in secrets if "migrate" not in each["metadata"]["name"]]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert endpoint["path"] in PATHS
    assert credentials["name"] == secret["metadata"]["name"]
    assert credentials["key"] in (secret.get("data") or secret["stringData"])
