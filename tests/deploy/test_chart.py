"""The Helm chart, rendered by Helm itself: laws of every object, values that are refused, mistakes that are found."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from workers.schedules.schedule import parse_schedule
from workers.settings import ENV_PREFIX, SECRETS, Settings, load_settings
from workers.worker.shutdown import _COLD_SHUTDOWN_SECONDS, _RELEASE_SECONDS

BASE = {"root": "s3://mill/root", "secrets": {"existingSecret": "mill"}}
Rendered = dict[str, Any]


@pytest.fixture
def chart(script: Callable[[str], ModuleType]) -> ModuleType:
    """deploy/check_chart.py, working on a copy of deploy/."""
    return script("check_chart")


@pytest.fixture
def everything(chart: ModuleType) -> list[tuple[str, Rendered]]:
    """Every object of every scenario, with the name of the scenario."""
    return [(name, each) for name, values in chart.scenarios().items() for each in chart.objects(values)]


def pods(objects: list[tuple[str, Rendered]]) -> Iterator[tuple[str, Rendered]]:
    """The pod specs among ``objects``, with a name for messages."""
    for scenario, found in objects:
        if found["kind"] in ("Deployment", "Pod"):
            spec = found["spec"]["template"]["spec"] if found["kind"] == "Deployment" else found["spec"]
            yield f"{scenario}: {found['metadata']['name']}", spec


def one(objects: list[Rendered], kind: str, part: str) -> Rendered:
    (found,) = [each for each in objects if each["kind"] == kind and each["metadata"]["name"].endswith(part)]
    return found


def merged(values: Rendered, changes: Rendered) -> Rendered:
    found = copy.deepcopy(values)
    for name, value in changes.items():
        found[name] = merged(found.get(name, {}), value) if isinstance(value, dict) else value
    return found


def environment(objects: list[Rendered], container: Rendered) -> dict[str, str]:
    """The variables of a container, in the order in which they go before one another."""
    (source,) = container["envFrom"]
    common = one(objects, "ConfigMap", source["configMapRef"]["name"])["data"]
    return dict(common) | {variable["name"]: variable["value"] for variable in container["env"]}


def test_nothing_is_wrong_with_the_chart(chart: ModuleType) -> None:
    assert chart.complaints() == []
    assert len(chart.scenarios()) >= 4


@pytest.mark.parametrize(
    ("file", "old", "new", "complaint"),
    [
        ("templates/worker.yaml", "maxSurge: 0", "maxSurge: [0]", "Kubernetes 1.29: .*maxSurge"),
        ("templates/_pod.tpl", "readOnlyRootFilesystem", "readOnlyRotFilesystem", "Kubernetes .*readOnlyRotFilesystem"),
        ("templates/scaledobject.yaml", "cooldownPeriod", "coolDownPeriod", "ScaledObject .*coolDownPeriod"),
        ("templates/scaledobject.yaml", "minReplicaCount: {{", 'minReplicaCount: "{{', "everything: .*block end"),
        ("templates/monitoring.yaml", "podMetricsEndpoints", "podMetricEndpoints", "PodMonitor .*podMetricEndpoints"),
        ("templates/server.yaml", "{{- end }}\n", "", "everything: "),
        ("values.schema.json", '"lease_seconds"', '"leese_seconds"', "other settings than workers/settings.py"),
        ("Chart.yaml", "apiVersion: v2", "apiVersion: v9", "lint: |apiVersion"),
    ],
)
def test_mistakes_are_found(chart: ModuleType, file: str, old: str, new: str, complaint: str) -> None:
    path = chart.CHART / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    assert re.search(complaint, "\n".join(chart.complaints("everything")), re.DOTALL)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"worker": {"replcas": 2}}, "'replcas' not allowed"),
        ({"settings": {"lease_second": 3}}, "'lease_second' not allowed"),
        ({"settings": {"lease_seconds": "x"}}, "want number"),
        ({"settings": {"lease_seconds": 0.5}}, "lease_seconds"),
        ({"settings": {"LATENTMILL_DEVICE": "cpu"}}, "without LATENTMILL_ and in lower case: device"),
        ({"settings": {"metrics_port": 1}}, "settings.metrics_port is no value of this chart: set metrics.port"),
        ({"worker": {"settings": {"redis_url": "redis://"}}}, "worker.settings.redis_url .*secrets.keys.redis_url"),
        ({"replicaCount": 2}, "replicaCount is no value of this chart: set worker.replicas"),
        ({"root": "/data"}, 'root must be an s3:// URL that all pods reach, got "/data"'),
        ({"secrets": {"existingSecret": ""}}, "must name a Secret with the keys redis_url, s3_access_key"),
        ({"secrets": {"keys": {"signing_key_file": "k"}}}, "'signing_key_file' not allowed"),
        ({"schedules": {"nightly.txt": "x"}}, "nightly.txt"),
        ({"server": {"ingress": {"enabled": True}}}, "server.ingress.host must be"),
        ({"server": {"ingress": {"enabled": True, "host": "a.example"}}}, "server.trustedProxies must name"),
        ({"keda": {"enabled": True}, "scheduler": {"enabled": False}}, "needs scheduler.enabled and metrics.enabled"),
        ({"keda": {"enabled": True, "trigger": "prometheus"}}, "keda.prometheus.serverAddress"),
        ({"keda": {"enabled": True, "minReplicas": 9}}, "must not exceed"),
    ],
    ids=lambda value: None if isinstance(value, dict) else re.sub(r"\W+", "-", value)[:30],
)
def test_values_that_are_refused(chart: ModuleType, changes: Rendered, said: str) -> None:
    with pytest.raises(chart.helm_python.HelmError, match=said):
        chart.render(merged(BASE, changes))


def test_every_value_that_moved_is_refused_with_a_sentence(chart: ModuleType) -> None:
    moved = chart.moved_values()
    assert len(moved) > 20
    for path, instead in moved.items():
        changes: Any = "x"
        for name in reversed(path.split(".")):
            changes = {name: changes}
        with pytest.raises(chart.helm_python.HelmError) as refused:
            chart.render(merged(BASE, changes))
        assert f"{path} is no value of this chart: {instead}" in str(refused.value)


def test_every_setting_is_taken_or_moved(chart: ModuleType) -> None:
    schema = chart.settings_schema()
    taken = set(schema["properties"])
    moved = {path.removeprefix("settings.") for path in chart.moved_values() if path.startswith("settings.")}
    assert taken | moved == set(Settings.model_fields)
    assert not taken & moved
    assert set(SECRETS) <= moved, "no secret stands in a ConfigMap"


def test_every_pod_runs_with_little_rights(everything: list[tuple[str, Rendered]]) -> None:
    assert len(list(pods(everything))) > 12
    for name, spec in pods(everything):
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["securityContext"].get("runAsUser", 10001) == 10001, name
        assert ("runAsUser" in spec["securityContext"]) is not name.startswith("openshift"), name
        for container in spec["containers"]:
            limits = container["securityContext"]
            assert limits["readOnlyRootFilesystem"] is True, name
            assert limits["allowPrivilegeEscalation"] is False, name
            assert limits["capabilities"] == {"drop": ["ALL"]}, name
            assert "memory" in container["resources"]["limits"], name
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), name


def test_every_mount_has_its_volume_and_every_secret_its_file(everything: list[tuple[str, Rendered]]) -> None:
    for name, spec in pods(everything):
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        (container,) = spec["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes), name
        files = {f"/etc/latentmill/secrets/{item['path']}" for item in volumes["secrets"]["secret"]["items"]}
        named = {value["value"] for value in container["env"] if value["value"].startswith("/etc/latentmill/secrets/")}
        assert files == named, name
        writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
        for variable in container["env"]:
            if variable["name"].endswith(("_DIR", "_CACHE")) and "SCHEDULES" not in variable["name"]:
                assert any(variable["value"].startswith(f"{place}/") for place in writable), (name, variable)


def test_the_environment_is_one_of_latentmill(
    chart: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The variables of each container are read by the product itself, with the secrets in their files."""
    for secret in (*SECRETS, "s3_access_key", "s3_secret_key", "s3_session_token", "s3_ca_file", "redis_ca_file"):
        (tmp_path / secret).write_text("redis://:pass@redis:6379/0" if secret == "redis_url" else "a-secret")
    seen = 0
    for scenario, values in chart.scenarios().items():
        objects = chart.objects(values)
        for name, spec in pods([(scenario, each) for each in objects]):
            variables = environment(objects, spec["containers"][0])
            with monkeypatch.context() as patched:
                for variable, value in variables.items():
                    patched.setenv(variable, value.replace("/etc/latentmill/secrets", str(tmp_path)))
                settings = load_settings()
            assert settings.root == "s3://mill/root"
            assert settings.redis_url is not None
            assert settings.redis_url.get_secret_value() == "redis://:pass@redis:6379/0", name
            known = {f"{ENV_PREFIX}{field.upper()}" for field in Settings.model_fields}
            known |= {f"{ENV_PREFIX}{field.upper()}_FILE" for field in SECRETS}
            assert {variable for variable in variables if variable.startswith(ENV_PREFIX)} <= known, name
            seen += 1
    assert seen > 12


def test_numbers_stay_numbers(chart: ModuleType) -> None:
    values = merged(BASE, {"settings": {"resident_bytes": 8589934592, "s3_read_timeout": 30.5, "tuned": True}})
    data = one(chart.objects(values), "ConfigMap", "-settings")["data"]
    assert data["LATENTMILL_RESIDENT_BYTES"] == "8589934592"
    assert data["LATENTMILL_S3_READ_TIMEOUT"] == "30.5"
    assert data["LATENTMILL_TUNED"] == "true"


@pytest.mark.parametrize("grace", [30, 90, 0.5])
def test_a_worker_may_finish_before_it_is_killed(chart: ModuleType, grace: float) -> None:
    objects = chart.objects(merged(BASE, {"worker": {"graceSeconds": grace}}))
    spec = one(objects, "Deployment", "-worker")["spec"]["template"]["spec"]
    assert float(environment(objects, spec["containers"][0])["LATENTMILL_GRACE_SECONDS"]) == grace
    assert spec["terminationGracePeriodSeconds"] >= grace + _RELEASE_SECONDS + _COLD_SHUTDOWN_SECONDS


def test_a_worker_with_a_gpu(chart: ModuleType) -> None:
    objects = chart.objects(chart.scenarios()["gpu-keda"])
    spec = one(objects, "Deployment", "-worker")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert container["resources"]["limits"] == {"memory": "8Gi", "nvidia.com/gpu": 1}
    assert spec["runtimeClassName"] == "nvidia"
    assert spec["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-L4"}
    assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert environment(objects, container)["LATENTMILL_DEVICE"] == "cuda"
    assert container["image"].endswith("-cuda")
    assert "nvidia.com/gpu" not in str(one(objects, "Deployment", "-scheduler"))


def test_workers_are_scaled_by_gauges_of_the_scheduler(chart: ModuleType, script: Any) -> None:
    objects = chart.objects(chart.scenarios()["gpu-keda"])
    scaled, worker = one(objects, "ScaledObject", "-worker"), one(objects, "Deployment", "-worker")
    assert "replicas" not in worker["spec"], "Helm must not undo what KEDA decides"
    assert scaled["spec"]["scaleTargetRef"]["name"] == worker["metadata"]["name"]
    assert scaled["spec"]["minReplicaCount"] == 0
    known = script("check_monitoring").known_metrics()
    service = one(objects, "Service", "-scheduler")
    (port,) = service["spec"]["ports"]
    targets = {}
    for trigger in scaled["spec"]["triggers"]:
        facts = trigger["metadata"]
        assert facts["valueLocation"] in known
        assert facts["url"] == f"http://{service['metadata']['name']}.datasets.svc:{port['port']}/metrics"
        targets[facts["valueLocation"]] = facts["targetValue"]
    assert targets == {"latentmill_shards_waiting": "8", "latentmill_shards_running": "2"}  # two processes a worker
    scheduler = one(objects, "Deployment", "-scheduler")["spec"]["template"]["spec"]["containers"][0]
    assert scheduler["ports"] == [{"name": port["targetPort"], "containerPort": port["port"]}]
    assert environment(objects, scheduler)["LATENTMILL_METRICS_HOST"] == "0.0.0.0"


def test_a_worker_reaches_redis_s3_and_dns_and_nothing_else(chart: ModuleType) -> None:
    objects = chart.objects(chart.scenarios()["everything"])
    policy = one(objects, "NetworkPolicy", "-worker")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    ports = {(port["port"], port["protocol"]) for rule in policy["egress"] for port in rule["ports"]}
    assert ports == {(6380, "TCP"), (443, "TCP"), (53, "TCP"), (53, "UDP")}
    assert all(rule["to"] for rule in policy["egress"])
    assert [rule["ports"] for rule in policy["ingress"]] == [[{"port": "metrics"}]]
    off = chart.objects(merged(BASE, {"metrics": {"enabled": False}}))
    assert one(off, "NetworkPolicy", "-worker")["spec"]["ingress"] == []
    selector = policy["podSelector"]["matchLabels"]
    labels = one(objects, "Deployment", "-worker")["spec"]["template"]["metadata"]["labels"]
    assert selector.items() <= labels.items()


def test_selectors_and_budgets_fit_their_pods(everything: list[tuple[str, Rendered]]) -> None:
    labels: dict[str, list[Rendered]] = {}
    for scenario, found in everything:
        if found["kind"] == "Deployment":
            assert (
                found["spec"]["selector"]["matchLabels"].items()
                <= found["spec"]["template"]["metadata"]["labels"].items()
            )
            labels.setdefault(scenario, []).append(found["spec"]["template"]["metadata"]["labels"])
    for scenario, found in everything:
        spec = found.get("spec", {})
        if found["kind"] in ("PodDisruptionBudget", "NetworkPolicy", "Service"):
            chosen = spec.get("selector", spec.get("podSelector"))
            chosen = chosen.get("matchLabels", chosen)
            assert sum(chosen.items() <= pod.items() for pod in labels[scenario]) == 1, found["metadata"]["name"]


def test_the_probe_of_a_server_asks_under_a_name_that_it_answers_to(chart: ModuleType) -> None:
    for values in (BASE, chart.scenarios()["everything"]):
        objects = chart.objects(values)
        container = one(objects, "Deployment", "-server")["spec"]["template"]["spec"]["containers"][0]
        names = environment(objects, container)["LATENTMILL_SERVER_NAMES"].split(",")
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            (header,) = container[probe]["httpGet"]["httpHeaders"]
            assert header["value"] in names
        assert f"{one(objects, 'Service', '-server')['metadata']['name']}.datasets.svc" in names


def test_tenants_and_schedules_are_those_of_the_product(chart: ModuleType, tmp_path: Path) -> None:
    from workers.ledger.tenants import read_tenants

    objects = chart.objects(chart.scenarios()["everything"])
    path = tmp_path / "tenants.yaml"
    path.write_text(one(objects, "ConfigMap", "-tenants")["data"]["tenants.yaml"])
    assert read_tenants(path).tenants["research"].weight == 3
    schedule = one(objects, "ConfigMap", "-schedules")["data"]["nightly.yaml"]
    assert parse_schedule(schedule.encode(), "nightly.yaml").name == "nightly"


def test_a_change_of_the_settings_starts_the_pods_anew(chart: ModuleType) -> None:
    def template(values: Rendered) -> Rendered:
        found: Rendered = one(chart.objects(values), "Deployment", "-worker")["spec"]["template"]
        return found

    assert template(BASE) == template(BASE)
    assert template(BASE) != template(merged(BASE, {"settings": {"lease_seconds": 30}}))


def test_the_release_of_the_chart_is_that_of_the_package(chart: ModuleType) -> None:
    from importlib.metadata import version

    about = yaml.safe_load((chart.CHART / "Chart.yaml").read_text())
    assert about["appVersion"] == version("latentmill")


def test_rules_and_dashboard_reach_the_cluster_unchanged(chart: ModuleType) -> None:
    objects = chart.objects(chart.scenarios()["everything"])
    rules = yaml.safe_load((chart.DEPLOY / "monitoring/rules.yaml").read_text())
    assert one(objects, "PrometheusRule", "mill")["spec"] == rules
    data = one(objects, "ConfigMap", "-dashboard")["data"]["latentmill.json"]
    assert yaml.safe_load(data) == yaml.safe_load((chart.DEPLOY / "monitoring/dashboard.json").read_text())
