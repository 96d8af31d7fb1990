"""Finds the GPUs that a sweep may use, without importing torch or Ray into this process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from orchestrator.execution.cluster import count_cores, environment
from orchestrator.exit_codes import EnvironmentUnfit
from orchestrator.run_options import RunOptions
from search_spaces.redaction import clean_line

SECONDS = (
    60.0  # to wait for nvidia-smi, which loads the driver if nothing else uses it, and for the answer of a cluster
)
_ASK_CLUSTER = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="error")
print("GPUs", int(ray.cluster_resources().get("GPU", 0)))
"""


def find_gpus(address: str | None) -> tuple[int, str]:
    """Return how many GPUs a sweep uses if the user gives no number, and a sentence that says so.

    These are all of the cluster at `address`, or all of this machine without an address. Raises EnvironmentUnfit if the cluster
    does not answer.
    """
    if address:
        found = _cluster_gpus(address)
        return (
            found,
            f"the cluster at {address} has {_plural(found)}: {_using(found) if found else 'using its CPU cores'}",
        )
    found = count_gpus()
    cores = f"using {count_cores()} CPU cores"
    if found and not _torch_has_cuda():
        return 0, f"{_plural(found)} found, but the installed torch is built without CUDA: {cores}"
    if not found:
        limited = "CUDA_VISIBLE_DEVICES" in os.environ
        hidden = " (CUDA_VISIBLE_DEVICES hides those of this machine)" if limited and present_gpus() else ""
        return 0, f"no GPU found{hidden}: {cores}"
    return found, f"{_plural(found)} found: {_using(found)}"


def count_gpus() -> int:
    """Return the number of NVIDIA GPUs that this process may use, which CUDA_VISIBLE_DEVICES may limit."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return present_gpus()
    named = [name for name in visible.split(",") if name.strip() not in ("", "-1")]
    return min(present_gpus(), len(named)) if named else 0


def present_gpus() -> int:
    """Return the number of NVIDIA GPUs of this machine that its driver lists, or that are in /dev if there is no nvidia-smi."""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=SECONDS, check=False)
    except FileNotFoundError:
        return len([path for path in Path("/dev").glob("nvidia*") if path.name.removeprefix("nvidia").isdigit()])
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return len(re.findall(r"^GPU [0-9]+:", done.stdout, re.MULTILINE)) if done.returncode == 0 else 0


def check_gpus(options: RunOptions) -> None:
    """Raise EnvironmentUnfit if no cluster is joined and this machine has fewer GPUs than the sweep needs to start."""
    if options.address is not None or not options.gpus:
        return
    found = count_gpus()
    if options.fewest_gpus > found:
        asked = options.gpus if options.least_gpus is None else f"{options.least_gpus}..{options.gpus}"
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        note = f" (CUDA_VISIBLE_DEVICES={visible!r})" if visible is not None else ""
        raise EnvironmentUnfit(
            f"--gpus {asked}: this machine has {found}{note}. Use --gpus {found}"
            f"{' to train on the CPU' if not found else ''}, or join a cluster with --address"
        )


def with_present_gpus(options: RunOptions) -> RunOptions:
    """Return the options with the GPUs that this machine has, of those that may be used, if no cluster is joined."""
    if options.least_gpus is None or options.address is not None:
        return options
    return replace(options, gpus=min(options.gpus, count_gpus()), least_gpus=None)


def _cluster_gpus(address: str) -> int:
    """Ask the Ray cluster in a process of its own, because this one may join it later with other settings."""
    command = [sys.executable, "-c", _ASK_CLUSTER, address]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False, env=environment())
    except subprocess.TimeoutExpired:
        raise EnvironmentUnfit(f"cluster at {address} cannot be joined: no answer in {SECONDS:g} s") from None
    answer = re.search(r"^GPUs ([0-9]+)$", done.stdout, re.MULTILINE)
    if not answer:
        reason = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        raise EnvironmentUnfit(f"cluster at {address} cannot be joined: {clean_line(reason)}")
    return int(answer[1])


def _torch_has_cuda() -> bool:
    """Return whether the installed torch is built with CUDA, from its version file, without importing it."""
    spec = find_spec("torch")
    version = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    if version is None or not version.is_file():
        return True
    return not re.search(r"^cuda\b.*=\s*None", version.read_text(encoding="utf-8"), re.MULTILINE)


def _plural(count: int) -> str:
    return f"{count} GPU" + ("" if count == 1 else "s")


def _using(count: int) -> str:
    return f"using {'it' if count == 1 else 'both' if count == 2 else 'all of them'}; --gpus 0 for the CPU"
