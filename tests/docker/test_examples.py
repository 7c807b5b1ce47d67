"""The Compose and Kubernetes examples: valid by the schemas, and consistent with the server's own times and ports."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from compose_spec import PyCompose

from tests.documents import FENCE
from yapserver.env import Environment
from yapserver.shutdown import CLOSE_S, EXIT_S

FOLDER = Path(__file__).resolve().parents[2] / "docker"
COMPOSE, GPU, NGINX = (FOLDER / "compose" / name for name in ("compose.yaml", "gpu.yaml", "nginx.conf"))
MANIFESTS = list(yaml.safe_load_all((FOLDER / "kubernetes" / "yap.yaml").read_text()))
KUBERNETES = ("1.28", "1.31", "1.34", "1.37")
DEFAULTS = {name: field.default for name, field in Environment.model_fields.items()}


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return loaded


def manifest(kind: str) -> dict[str, Any]:
    (found,) = [each for each in MANIFESTS if each["kind"] == kind]
    return dict(found)


def server_environment() -> dict[str, dict[str, str]]:
    """What both examples set."""
    return {"compose": compose()["services"]["yap-1"]["environment"], "kubernetes": manifest("ConfigMap")["data"]}


# -- Compose -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", [COMPOSE, GPU], ids=lambda path: path.name)
def test_compose_files_follow_the_specification(file: Path) -> None:
    # Values in the place of variables: the parser reads what Compose reads after it has filled them in.
    loaded = yaml.safe_load(re.sub(r"\$\{\w+[^}]*\}", "value", file.read_text()))
    assert {"yap-1", "yap-2"} <= set(PyCompose.from_json(json.dumps(loaded)).service_names())
    loaded["services"]["yap-2"]["prots"] = []
    with pytest.raises(ValueError, match="prots"):
        PyCompose.from_json(json.dumps(loaded))


def test_docker_itself_reads_the_compose_files(tmp_path: Path) -> None:
    docker = shutil.which("docker")
    known = docker and subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode == 0
    if not known:
        pytest.skip("docker compose is not installed; the specification's own parser has read the files")
    for file in (COMPOSE, GPU):
        shutil.copy(file, tmp_path)
    names = re.findall(r"\$\{(\w+):\?", COMPOSE.read_text())
    (tmp_path / ".env").write_text("".join(f"{name}=1\n" for name in names))
    command = [str(docker), "compose", "-f", "compose.yaml", "-f", "gpu.yaml", "config", "--quiet"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_both_compose_services_differ_in_volume_and_address_alone() -> None:
    services = compose()["services"]
    one, two = dict(services["yap-1"]), dict(services["yap-2"])
    for service in (one, two):
        assert service.pop("volumes") != []
        service.pop("networks")
    assert one == two
    addresses = [services[name]["networks"]["inside"]["ipv4_address"] for name in ("yap-1", "yap-2")]
    assert services["nginx"]["extra_hosts"] == [f"yap-{n}:{address}" for n, address in enumerate(addresses, 1)]
    assert set(yaml.safe_load(GPU.read_text())["services"]) == {"yap-1", "yap-2"}


def test_compose_gives_a_process_time_to_drain() -> None:
    service = compose()["services"]["yap-1"]
    grace = int(service["stop_grace_period"].removesuffix("s"))
    assert grace > float(service["environment"]["DRAIN_TIMEOUT_S"]) + CLOSE_S + EXIT_S


def test_the_readme_of_compose_sets_every_variable_that_compose_asks_for() -> None:
    asked = set(re.findall(r"\$\{(\w+):\?", COMPOSE.read_text()))
    (commands,) = [body for language, body in FENCE.findall((FOLDER / "compose" / "README.md").read_text()) if language]
    assert asked == {name for name in asked if f"{name}=" in commands}


# -- Kubernetes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", KUBERNETES)
def test_manifests_follow_the_schemas_of_kubernetes(version: str) -> None:
    assert {each["kind"] for each in MANIFESTS} == {
        "ConfigMap", "Service", "StatefulSet", "PodDisruptionBudget", "Ingress", "CronJob",
    }  # fmt: skip
    for each in MANIFESTS:
        kubernetes_validate.validate(each, version, strict=True)


def test_the_schemas_refuse_a_misspelt_field() -> None:
    wrong = manifest("StatefulSet")
    wrong["spec"] = {**wrong["spec"], "replica": 2}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES[-1], strict=True)


def test_a_pod_has_time_to_drain() -> None:
    pod = manifest("StatefulSet")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    sleep = float(container["lifecycle"]["preStop"]["exec"]["command"][1])
    drain = float(manifest("ConfigMap")["data"]["DRAIN_TIMEOUT_S"])
    assert pod["terminationGracePeriodSeconds"] > sleep + drain + CLOSE_S + EXIT_S
    readiness = container["readinessProbe"]
    assert sleep >= readiness["periodSeconds"] * readiness["failureThreshold"]


def test_probes_ask_the_paths_and_the_port_that_the_server_has() -> None:
    (container,) = manifest("StatefulSet")["spec"]["template"]["spec"]["containers"]
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz",
    }  # fmt: skip
    assert all(probe["httpHeaders"] == [{"name": "Host", "value": "localhost"}] for probe in probes.values())
    assert container["ports"] == [{"name": "http", "containerPort": DEFAULTS["PORT"]}]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert manifest("Service")["spec"]["ports"][0]["targetPort"] == "http"


def test_pods_run_as_the_images_own_user() -> None:
    uid = re.search(r"useradd --uid (\d+)", (FOLDER / "Dockerfile").read_text())
    assert uid
    for pod in (
        manifest("StatefulSet")["spec"]["template"]["spec"],
        manifest("CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"],
    ):
        assert pod["securityContext"]["runAsUser"] == int(uid[1])
        assert pod["containers"][0]["envFrom"] == [{"configMapRef": {"name": "yap"}}, {"secretRef": {"name": "yap"}}]


# -- both --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("example", ["compose", "kubernetes"])
def test_variables_of_the_examples_exist_and_believe_the_proxy(example: str) -> None:
    variables = server_environment()[example]
    assert set(variables) <= set(DEFAULTS)
    assert variables["TRUST_PROXY"] == "1"


def test_proxies_wait_longer_than_the_server() -> None:
    longest = max(DEFAULTS["WS_IDLE_TIMEOUT_S"], DEFAULTS["GEN_TIMEOUT_S"])
    for text in (NGINX.read_text(), (FOLDER / "kubernetes" / "yap.yaml").read_text()):
        times = [int(found) for found in re.findall(r'proxy[_-]read[_-]timeout:? "?(\d+)', text)]
        assert times
        assert min(times) > longest
