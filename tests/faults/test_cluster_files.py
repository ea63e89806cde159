"""The files of docs/cluster: each is parsed and checked by the strictest reader at hand."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml

from search_spaces.study.shipped import shipped

FOLDER = Path(__file__).parents[2] / "docs" / "cluster"
SCRIPTS = sorted(FOLDER.glob("*.sh"))
RAYJOB_SPEC = {
    "entrypoint", "submissionMode", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished",
    "submitterPodTemplate", "rayClusterSpec", "runtimeEnvYAML", "activeDeadlineSeconds",
}  # fmt: skip
CLUSTER_SPEC = {"rayVersion", "headGroupSpec", "workerGroupSpecs"}
GROUP = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}


def read(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))


def commands(text: str) -> list[str]:
    """Return every `routing sweep ...` in a text, continued lines joined."""
    return re.findall(r"routing sweep [^\n&]*", text.replace("\\\n", " "))


def test_ray_cluster_satisfies_rays_own_schema() -> None:
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    content = read("ray-cluster.yaml")
    jsonschema.validate(content, schema)
    assert content["max_workers"] == len(content["provider"]["worker_ips"])
    for command in (*content["head_start_ray_commands"], *content["worker_start_ray_commands"]):
        assert "ray stop" in command or "RAY_AUTH_MODE=token" in command
    assert "--dashboard-host=127.0.0.1" in content["head_start_ray_commands"][-1]


def test_rayjob_is_what_kuberay_reads() -> None:
    job = read("rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    assert set(spec) <= RAYJOB_SPEC
    assert spec["submissionMode"] in {"K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"}
    cluster = spec["rayClusterSpec"]
    assert set(cluster) == CLUSTER_SPEC
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        assert set(group) <= GROUP
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        [container] = pod["containers"]
        environment = {entry["name"]: entry for entry in container["env"]}
        assert environment["RAY_AUTH_MODE"]["value"] == "token"
        assert "valueFrom" in environment["RAY_AUTH_TOKEN"], "a token belongs in a secret"
        assert all(isinstance(entry.get("value", ""), str) for entry in container["env"])
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
        assert container["volumeMounts"][0]["mountPath"] == "/results"
    names = [group["groupName"] for group in cluster["workerGroupSpecs"]]
    assert len(set(names)) == len(names)


def test_rayjob_against_the_crd() -> None:
    """``ROUTING_RAYJOB_CRD`` names KubeRay's ray.io_rayjobs.yaml where it is available."""
    path = os.environ.get("ROUTING_RAYJOB_CRD")
    if path is None:
        pytest.skip("ROUTING_RAYJOB_CRD is not set")
    crd = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    [schema] = [v["schema"]["openAPIV3Schema"] for v in crd["spec"]["versions"] if v["name"] == "v1"]
    jsonschema.validate(read("rayjob.yaml"), schema)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_valid_bash(script: Path, tmp_path: Path) -> None:
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", "--exclude=SC1091", str(script)], check=True)
    done = subprocess.run([str(script)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode != 0
    assert "usage: " in done.stderr


def test_every_sweep_command_is_one_we_have() -> None:
    from routing.cli import cli

    known = {option for parameter in cli.commands["sweep"].params for option in parameter.opts}
    texts = [path.read_text() for path in (*FOLDER.iterdir(), FOLDER.parent / "cluster.md")]
    found = [command for text in texts for command in commands(text)]
    assert len(found) >= 4
    for command in found:
        study = command.split()[2].strip('"')
        assert study.startswith("$") or study in shipped() or study.isupper(), command
        assert set(re.findall(r"--[a-z-]+", command)) <= known, command


def test_the_token_is_asked_for_everywhere() -> None:
    for name in ("slurm.sh", "submit.sh", "ray-cluster.yaml", "rayjob.yaml"):
        assert re.search(r"RAY_AUTH_MODE(=|, value: )token", (FOLDER / name).read_text()), name


def test_a_real_submission(tmp_path: Path) -> None:
    """submit.sh hands `ray job submit` what it should, with a stand-in for ray."""
    stand_in = tmp_path / "ray"
    stand_in.write_text('#!/bin/bash\necho "$RAY_AUTH_MODE" "$@"\n')
    stand_in.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        [str(FOLDER / "submit.sh"), "digits", "/shared/out"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("token job submit --runtime-env")
    assert done.stdout.endswith("-- python -m routing sweep digits --address auto --out /shared/out --resume\n")
    assert set(read("runtime_env.yaml")) == {"working_dir", "excludes", "env_vars"}
