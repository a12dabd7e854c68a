"""docs/kubernetes.yaml, as far as it can be tested without a cluster."""

from typing import Any

import yaml

from process.settings import FILE, variables
from serving.settings import ServingSettings
from tests.services import ROOT

OBJECTS: list[dict[str, Any]] = list(
    yaml.safe_load_all((ROOT / "docs" / "kubernetes.yaml").read_text())
)
CONFIG = next(each["data"] for each in OBJECTS if each["kind"] == "ConfigMap")
SECRETS = next(each["stringData"] for each in OBJECTS if each["kind"] == "Secret")
PODS = {
    each["metadata"]["labels"]["process"]: each["spec"]["template"]["spec"]
    for each in OBJECTS
    if each["kind"] == "Deployment"
}


def test_its_settings_exist_and_their_values_are_taken() -> None:
    known = set(variables(ServingSettings))
    assert {name.removesuffix(FILE) for name in CONFIG} <= known
    given = {name.lower().removeprefix("streamgcn_"): value for name, value in CONFIG.items()}
    ServingSettings.model_validate(given)


def test_the_files_that_it_names_are_in_the_secret_and_no_password_is_in_the_environment() -> None:
    named = {value for value in CONFIG.values() if value.startswith("/secrets/")}
    assert named == {f"/secrets/{name}" for name in SECRETS}
    assert not any("PASSWORD" in name and not name.endswith(FILE) for name in CONFIG)


def test_each_process_runs_as_the_user_of_the_image_and_is_probed_at_its_own_endpoint() -> None:
    assert PODS.keys() == {"consumer", "trainer", "serving"}
    for room, pod in PODS.items():
        [container] = pod["containers"]
        assert container["args"] == ["streamgcn", room]
        assert pod["enableServiceLinks"] is False  # STREAMGCN_..._SERVICE_HOST is no setting
        assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
        assert str(container["ports"][0]["containerPort"]) == CONFIG["STREAMGCN_METRICS_PORT"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert f"--uid {pod['securityContext']['runAsUser']} " in (ROOT / "Dockerfile").read_text()
        assert {mount["name"] for mount in container["volumeMounts"]} == {
            volume["name"] for volume in pod["volumes"]
        }
