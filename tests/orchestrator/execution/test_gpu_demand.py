"""The wait for GPUs: a stand-in for Ray's groups of resources, and a real autoscaler that starts nodes with logical GPUs."""

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import pytest

from orchestrator import exit_codes
from orchestrator.execution import gpu_demand
from orchestrator.execution.gpu_demand import LONGEST_WAIT, await_gpus
from orchestrator.execution.reaper import processes_of
from orchestrator.exit_codes import EnvironmentUnfit
from tests.fixtures.cli_process import ROOT, arguments, finish, launch, write_project


@pytest.fixture
def groups(monkeypatch):
    """The groups of resources that wait for a place at the moment."""
    waiting = []
    util = ModuleType("ray.util")
    util.placement_group = lambda bundles: waiting.append(bundles) or bundles
    util.remove_placement_group = waiting.remove
    monkeypatch.setitem(sys.modules, "ray", ModuleType("ray"))
    monkeypatch.setitem(sys.modules, "ray.util", util)
    return waiting


class Cluster:
    """A cluster to which a node comes with each look, and time that passes in waiting."""

    def __init__(self, *numbers, groups):
        self.numbers, self.now, self.groups, self.asked = [*numbers], 0.0, groups, []

    def nodes(self):
        self.asked.append(len(self.groups))
        number = self.numbers.pop(0) if len(self.numbers) > 1 else self.numbers[0]
        return [{"CPU": 8.0}, *({"CPU": 4.0, "GPU": 1.0} for _ in range(number))]

    def wait(self, least, most):
        await_gpus(least, most, self.nodes, clock=lambda: self.now, sleep=self.sleep)

    def sleep(self, seconds):
        self.now += seconds


def test_nothing_is_asked_for_where_enough_are_there(groups):
    cluster = Cluster(4, groups=groups)
    cluster.wait(4, 32)
    assert cluster.asked == [0]
    assert cluster.now == 0


def test_the_most_are_asked_for_until_the_least_are_there(groups, caplog):
    caplog.set_level("INFO")
    cluster = Cluster(1, 1, 3, 3, 5, groups=groups)
    cluster.wait(4, 32)
    assert cluster.asked == [0, 32, 32, 32, 32]
    assert groups == [], "Tune asks for its own"
    told = [record.getMessage().partition(";")[0] for record in caplog.records]
    assert told == [f"the cluster has {n} of the 4 GPUs with which this sweep starts" for n in (1, 3)]


def test_the_wait_ends(groups):
    cluster = Cluster(3, groups=groups)
    with pytest.raises(EnvironmentUnfit, match=r"--gpus 4\.\.32: the cluster has 3 after 30 minutes"):
        cluster.wait(4, 32)
    assert LONGEST_WAIT <= cluster.now <= LONGEST_WAIT + gpu_demand.LOOK_SECONDS
    assert groups == []


def test_a_signal_in_the_wait_withdraws_the_demand(groups):
    cluster = Cluster(3, groups=groups)

    def interrupted(seconds):
        raise KeyboardInterrupt

    cluster.sleep = interrupted
    with pytest.raises(KeyboardInterrupt):
        cluster.wait(4, 32)
    assert groups == []


# Joins the cluster as a driver does, prints what it found, and then opens workers for as many devices as it may use.
DRIVER = """
import json, sys, time, logging
logging.basicConfig(level="INFO", stream=sys.stderr)
from orchestrator.execution.cluster import cluster
with cluster(3, 4, sys.argv[1], None, 1) as (share, folder):
    import ray
    from ray.util import placement_group
    began = ray.cluster_resources().get("GPU", 0)
    groups = [placement_group([share.resources]) for _ in range(share.devices)]
    ready = [group.wait(90) for group in groups]
    print(json.dumps([share.devices, share.expected, began, ready]), flush=True)
"""


@pytest.mark.slow
def test_an_autoscaler_starts_the_nodes_for_which_a_sweep_waits_and_a_signal_ends_the_wait(tmp_path):
    """Ray's own autoscaler, with its provider of nodes that are processes of this machine."""
    with tempfile.TemporaryDirectory(prefix="a", dir="/tmp", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        try:
            (folder / "token").write_text("0" * 64)
            (folder / "config").write_text(json.dumps(CONFIG))
            environment = {
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "RAY_USAGE_STATS_ENABLED": "0",
                "RAY_FAKE_CLUSTER": "1",
            }
            environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": f"{folder}/token"}
            environment |= {"AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_TMPDIR": f"{folder}/r"}
            start = [f"{Path(sys.executable).parent}/ray", "start", "--head", f"--autoscaling-config={folder}/config"]
            start += ["--port=6396", "--node-ip-address=127.0.0.1", "--num-cpus=1", "--num-gpus=0"]
            start += ["--include-dashboard=false", f"--temp-dir={folder}/r", "--object-store-memory=100000000"]
            head = subprocess.run(start, env=environment, capture_output=True, text=True, timeout=90, check=False)
            assert head.returncode == 0, head.stdout + head.stderr
            driver = [sys.executable, "-c", DRIVER, "127.0.0.1:6396"]
            done = subprocess.run(driver, env=environment, capture_output=True, text=True, timeout=200, check=False)
            assert done.returncode == 0, done.stderr
            devices, expected, began, ready = json.loads(done.stdout)
            assert devices == 3
            assert 1 <= expected <= began, "it started with those that were there"
            assert ready == [True, True, True], "the others came while it worked"
            assert "the cluster has 0 of the 1 GPUs with which this sweep starts" in done.stderr
            words = arguments(
                write_project(tmp_path), tmp_path / "out", "--gpus", "8..9", "--address", "127.0.0.1:6396"
            )
            waiting = launch([sys.executable, "-m", "orchestrator.run", *words], tmp_path, environment)
            while "GPUs with which this sweep starts" not in (line := waiting.stderr.readline()):
                assert line, "it ended"
            waiting.terminate()
            assert finish(waiting)[0] == exit_codes.PREEMPTED
        finally:
            for _ in range(2):
                for pid in processes_of(folder, spared=os.getpid()):
                    with suppress(ProcessLookupError):
                        os.kill(pid, 9)
                time.sleep(0.5)


CONFIG = {
    "cluster_name": "c",
    "max_workers": 3,
    "idle_timeout_minutes": 5,
    "provider": {"type": "fake_multinode", "launch_multiple": True, "gcs_address": "127.0.0.1:6396"},
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0},
        "gpu": {"resources": {"CPU": 1, "GPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 3},
    },
    "head_node_type": "ray.head.default",
    "upscaling_speed": 20,
    "auth": {},
    "docker": {},
    "initialization_commands": [],
    "setup_commands": [],
    "head_setup_commands": [],
    "worker_setup_commands": [],
    "head_start_ray_commands": [],
    "worker_start_ray_commands": [],
    "file_mounts": {},
    "cluster_synced_files": [],
    "file_mounts_sync_continuously": False,
    "rsync_exclude": [],
    "rsync_filter": [],
}
