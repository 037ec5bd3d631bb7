"""The recipes for clusters say nothing that their tools, Ray or rayclip would refuse."""

from __future__ import annotations

import copy
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import cli as ray_cli
from run_cli import call

from rayclip.report.results import Summary

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
AWS = yaml.safe_load((CLUSTER / "aws.yaml").read_text())
SERVICE_ACCOUNT, RAY_JOB = yaml.safe_load_all((CLUSTER / "kuberay.yaml").read_text())
RAY_CLUSTER = RAY_JOB["spec"]["rayClusterSpec"]
GROUPS = [RAY_CLUSTER["headGroupSpec"], *RAY_CLUSTER["workerGroupSpecs"]]
DOCKERFILE = (CLUSTER / "Dockerfile").read_text()
KUBERNETES = "1.33"
A_COMMAND = re.compile(r"(?<![\w./-])(?=((?:rayclip extract|ray [a-z][a-z-]*)\b.*))")
CODE = re.compile(r"```bash\n(.*?)```|`([^`\n]+)`", re.DOTALL)


def lines(path: Path) -> list[str]:
    """What may hold a command: of a README only its code."""
    text = path.read_text()
    if path.suffix == ".md":
        text = "\n".join(block or span for block, span in CODE.findall(text))
    text = text.replace("sbatch cluster/slurm.sh", "rayclip extract")  # which gets what follows
    return re.sub(r"\\\n#?", " ", text).splitlines()


def commands() -> Iterator[tuple[str, str]]:
    """Every command line of ray and rayclip, and the file it is in."""
    for path in sorted(CLUSTER.iterdir()):
        for line in lines(path):
            for found in A_COMMAND.finditer(line):
                command, quote = found[1], line[: found.start()][-1:]
                if quote in ("'", "`"):
                    command = command.partition(quote)[0]
                command = re.sub(r"\$(\w+|\(\(.*?\)\))", "1", command.replace('"$@"', ""))
                yield path.name, command.partition(" #")[0].rstrip("& ")
    yield "kuberay.yaml", RAY_JOB["spec"]["entrypoint"]
    for group in GROUPS:
        words = " ".join(f"--{name}={value}" for name, value in group["rayStartParams"].items())
        yield "kuberay.yaml", f"ray start {words}"


COMMANDS = sorted(set(commands()))


def of(tool: str) -> list[str]:
    return [command for _, command in COMMANDS if command.startswith(tool)]


@pytest.mark.parametrize("command", of("rayclip extract "))
def test_rayclip_commands_are_valid(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_done = Summary()
    monkeypatch.setattr("rayclip.run.run_extraction", lambda *_: nothing_done)
    ended = call(*shlex.split(command)[1:])
    assert ended.status == 0, ended.stderr


@pytest.mark.parametrize("command", of("ray "))
def test_ray_commands_are_valid(command: str) -> None:
    known: click.Command = ray_cli
    words = shlex.split(command)[1:]
    while isinstance(known, click.Group) and words:
        known = known.commands[words.pop(0)]
    if words:  # else it is only mentioned
        known.make_context(known.name, words)


def test_all_recipes_use_rayclip() -> None:
    assert {name for name, command in COMMANDS if command.startswith("rayclip extract")} == {
        "Dockerfile",
        "README.md",
        "aws.yaml",
        "kuberay.yaml",
        "slurm.sh",
    }


def test_the_cluster_launcher_accepts_the_aws_recipe() -> None:
    prepared = prepare_config(copy.deepcopy(AWS))
    validate_config(prepared)
    assert prepared["head_setup_commands"] == []  # the launcher's own are gone
    assert prepared["worker_setup_commands"] == []


@pytest.mark.parametrize("kind", AWS["available_node_types"])
def test_ec2_accepts_the_instances_of_the_aws_recipe(kind: str) -> None:
    session = pytest.importorskip("botocore.session", reason="no botocore")
    from botocore.validate import validate_parameters

    model = session.Session().get_service_model("ec2")
    request = model.operation_model("RunInstances").input_shape
    config = AWS["available_node_types"][kind]["node_config"]
    validate_parameters({"MinCount": 1, "MaxCount": 1, **config}, request)
    assert config["InstanceType"] in model.shape_for("InstanceType").enum
    assert (
        config["BlockDeviceMappings"][0]["Ebs"]["VolumeType"] in model.shape_for("VolumeType").enum
    )


def test_kuberay_accepts_the_job() -> None:
    schema = json.loads(Path(__file__).with_name("rayjob.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(RAY_JOB)


@pytest.mark.parametrize("group", GROUPS, ids=["head", "gpu", "cpu"])
def test_kubernetes_accepts_the_pods(group: dict[str, Any]) -> None:
    kubernetes = pytest.importorskip("kubernetes_validate", reason="no kubernetes-validate")
    template = {"apiVersion": "v1", "kind": "PodTemplate", "template": group["template"]}
    kubernetes.validate(template, KUBERNETES, strict=True)
    kubernetes.validate(SERVICE_ACCOUNT, KUBERNETES, strict=True)
    pod = group["template"]["spec"]
    assert pod["serviceAccountName"] == SERVICE_ACCOUNT["metadata"]["name"]
    [container] = pod["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert {volume["name"] for volume in pod["volumes"]} == set(mounts)
    assert "/dev/shm" in mounts.values()


def test_the_image_has_the_ray_that_the_job_expects() -> None:
    assert f"ray=={RAY_CLUSTER['rayVersion']}" in (ROOT / "constraints.txt").read_text().split()


def test_docker_finds_the_files_of_the_image() -> None:
    everything, *kept = (CLUSTER / "Dockerfile.dockerignore").read_text().split()
    assert everything == "*"
    copied = " ".join(re.findall(r"^COPY (.*) \S+$", DOCKERFILE, re.MULTILINE)).split()
    assert {f"!{name}" for name in copied} == {name for name in kept if name.startswith("!")}
    assert all((ROOT / name).exists() for name in copied)


def test_the_image_installs_the_dependencies_of_rayclip() -> None:
    [code] = re.findall(r"python -c '(.*)' \$EXTRAS >", DOCKERFILE)

    def packages(*extras: str) -> set[str]:
        command = [sys.executable, "-c", code, *extras]
        said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return set(said.stdout.splitlines())

    assert "torch>=2.6" in packages()
    assert "open_clip_torch>=3.3" in packages("open_clip") - packages()


def test_the_token_is_where_the_user_of_the_image_looks_for_it() -> None:
    [home] = re.findall(r"^ENV HOME=(.*)$", DOCKERFILE, re.MULTILINE)
    assert AWS["file_mounts"] == {f"{home}/.ray/auth_token": "~/.ray/auth_token"}


@pytest.mark.parametrize(
    ("linter", "recipe"), [("hadolint", "Dockerfile"), ("shellcheck", "slurm.sh")]
)
def test_linters_accept_the_recipes(linter: str, recipe: str) -> None:
    path = shutil.which(linter, path=str(Path(sys.executable).parent)) or shutil.which(linter)
    if path is None:
        pytest.skip(f"there is no {linter}: pip install 'rayclip[recipes]'")
    said = subprocess.run([path, CLUSTER / recipe], capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr
