"""The recipes of deploy/ and the Dockerfile: what can be checked without a cluster and without a docker daemon."""

import os
import re
import signal
import subprocess
import time
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
# Stand for Slurm's, Ray's and our commands. Each call is noted, and `peft-sweep` waits for a SIGTERM if it is told to.
COMMANDS = {
    "srun": 'while [[ "$1" == --* ]]; do shift; done; exec "$@"',
    "hostname": "echo 10.0.0.1 fe80::1",
    "scontrol": '[ "$1" = show ] && printf "a1\\na2\\n"; exit 0',
    "ray": "exec sleep 60",
    # Asked how many nodes Ray has: as many as were started.
    "python": 'until [ "$(grep -c "^ray start" "$(dirname "$0")/calls")" = 2 ]; do sleep 0.05; done; echo 2',
    "peft-sweep": '[ -n "${CODE:-}" ] && exit "$CODE"\ntrap "exit 75" TERM\nfor i in $(seq 200); do sleep 0.05; done',
}


@pytest.fixture
def slurm(tmp_path):
    """Starts the batch script with the stand-ins, in a job of two nodes with four GPUs each."""
    for name, text in COMMANDS.items():
        path = tmp_path / name
        path.write_text(f'#!/bin/bash\necho "{name} $*" >> {tmp_path}/calls\n{text}\n', encoding="utf-8")
        path.chmod(0o755)
    variables = {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "SLURM_JOB_ID": "17",
        "SLURM_JOB_NODELIST": "a[1-2]",
        "SLURM_GPUS_ON_NODE": "4",
        "SLURM_CPUS_PER_TASK": "16",
    }

    def start(**more):
        command = ["bash", str(ROOT / "deploy" / "slurm.sbatch"), "--space", "my tickets.py"]
        return subprocess.Popen(command, env={**variables, **more}, stdout=subprocess.DEVNULL, start_new_session=True)

    calls = tmp_path / "calls"
    calls.touch()
    return start, lambda: calls.read_text(encoding="utf-8").splitlines()


def test_a_slurm_job_starts_ray_on_each_node_and_the_driver_with_all_gpus(slurm):
    start, calls = slurm
    assert start(CODE="0").wait(20) == 0
    lines = calls()
    assert [line for line in lines if line.startswith("ray start --head --node-ip-address=10.0.0.1 --port=6379")]
    assert [line for line in lines if line.startswith("ray start --address=10.0.0.1:6379 --num-cpus=16 --num-gpus=4")]
    (driver,) = [line for line in lines if line.startswith("peft-sweep")]
    assert driver == (
        "peft-sweep run --address 10.0.0.1:6379 --gpus 8 --out runs --report reports --yes --space my tickets.py"
    )
    assert not [line for line in lines if "requeue" in line]


def test_before_the_time_limit_the_driver_is_told_and_the_job_is_queued_again(slurm):
    start, calls = slurm
    job = start()
    deadline = time.monotonic() + 20
    while not any(line.startswith("peft-sweep") for line in calls()):
        assert job.poll() is None and time.monotonic() < deadline  # noqa: PT018
        time.sleep(0.05)
    time.sleep(0.2)
    os.kill(job.pid, signal.SIGTERM)
    assert job.wait(20) == 75
    assert calls()[-1] == "scontrol requeue 17"


def test_a_failed_sweep_is_not_queued_again(slurm):
    start, calls = slurm
    assert start(CODE="3").wait(20) == 3
    assert not [line for line in calls() if "requeue" in line]


def test_the_options_of_the_recipes_exist():
    from orchestrator.run import parser

    known = {option for action in parser()._actions for option in action.option_strings}
    for name in ("slurm.sbatch", "kuberay.yaml"):
        text = (ROOT / "deploy" / name).read_text(encoding="utf-8")
        command = text[text.index("peft-sweep run --address" if name == "slurm.sbatch" else "entrypoint:") :][:300]
        used = set(re.findall(r"--[a-z-]+", command))
        assert {"--address", "--gpus", "--out", "--report", "--yes"} <= used
        assert used <= known


# Fields of the API of KubeRay 1.x that the recipe uses (ray-operator/apis/ray/v1/rayjob_types.go and raycluster_types.go).
FIELDS = {
    "job": {
        *("entrypoint", "submissionMode", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished"),
        *("rayClusterSpec", "runtimeEnvYAML", "activeDeadlineSeconds", "submitterPodTemplate", "suspend", "metadata"),
    },
    "cluster": {"rayVersion", "headGroupSpec", "workerGroupSpecs", "enableInTreeAutoscaling", "autoscalerOptions"},
    "head": {"serviceType", "rayStartParams", "template", "headService", "enableIngress"},
    "worker": {"groupName", "replicas", "minReplicas", "maxReplicas", "numOfHosts", "rayStartParams", "template"},
}


def test_the_recipe_for_kuberay_is_a_ray_job_of_its_api():
    claim, job = yaml.safe_load_all((ROOT / "deploy" / "kuberay.yaml").read_text(encoding="utf-8"))
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    cluster = spec["rayClusterSpec"]
    head, (workers,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    for fields, part in (("job", spec), ("cluster", cluster), ("head", head), ("worker", workers)):
        assert part.keys() <= FIELDS[fields]
    assert all(isinstance(value, str) for group in (head, workers) for value in group["rayStartParams"].values())
    assert f"--gpus {workers['replicas']} " in spec["entrypoint"]
    for group in (head, workers):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
        assert pod["securityContext"]["runAsNonRoot"]
    assert claim["metadata"]["name"] in [
        v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "sweeps" in v.values()
    ]


def test_the_image_installs_torch_in_the_range_of_the_package_and_runs_without_privileges():
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (torch,) = [each for each in project["dependencies"] if each.startswith("torch")]
    assert f'"{torch}"' in text
    copied = re.findall(r"^COPY ([\w. ]+) /source", text, re.MULTILINE)
    assert all((ROOT / name).exists() for names in copied for name in names.split())
    assert {name for names in copied for name in names.split()} >= {
        "orchestrator",
        "trainables",
        "search_spaces",
        "reports",
    }
    extras = set(re.findall(r"EXTRAS=([\w,]+)", text)[0].split(",")) | {"cluster"}
    assert extras <= project["optional-dependencies"].keys()
    instructions = re.findall(r"^[A-Z]+", text, re.MULTILINE)
    assert instructions.index("USER") > max(i for i, name in enumerate(instructions) if name == "RUN")
