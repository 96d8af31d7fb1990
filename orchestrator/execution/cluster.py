"""Starts a Ray cluster for one sweep, or joins a running one, and computes how many trials run on it at once."""

from __future__ import annotations

import logging
import math
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.execution.drain import Drain, shielded
from orchestrator.execution.gpu_demand import await_gpus, number_of_gpus
from orchestrator.execution.reaper import processes_of
from orchestrator.exit_codes import EnvironmentUnfit
from search_spaces.environment import changed
from search_spaces.redaction import CleanRecords, clean_line, register_secret
from trainables.worker.worker_environment import code_folders

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
WATCH_SECONDS = 5.0
LOST_AFTER = 6  # checks in a row without an answer
ATTEMPTS = 2  # to start Ray; on a busy machine the first may take longer than Ray waits for itself
REAPER_SECONDS = 15.0
# Environment variables of the processes that train.
WORKER_VARIABLES = {
    "HF_HUB_OFFLINE": "1",  # the driver has downloaded all files, so trials need no network
    # Otherwise the allocator maps and unmaps the memory of large activations at every step.
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 31),
}
# Environment variables that Ray itself changes; they are restored after the sweep.
SET_BY_RAY = ("PYTHONBREAKPOINT", "RAY_AUTH_MODE", "RAY_CLIENT_MODE", "TUNE_RESULT_BUFFER_LENGTH")


@dataclass(frozen=True, kw_only=True)
class Share:
    """The devices of a sweep, GPUs or CPU cores: how many, with how many cores each, and the trials that share one at once.

    `expected` of the `devices` were there when the sweep began; None: all. The others are used if they come.
    """

    devices: int
    expected: int | None = None
    cpu: float
    gpu: int
    per_device: int

    @property
    def slots(self) -> int:
        """The number of trials that can be trained at once."""
        return self.devices * self.per_device

    @property
    def resources(self) -> dict[str, float]:
        """What Ray reserves for a device worker."""
        return {name: amount for name, amount in (("CPU", self.cpu), ("GPU", self.gpu)) if amount}


def count_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device_name(gpus: int, least: int | None = None) -> str:
    """Return the name of a sweep's devices in manifests and reports, such as "2 GPUs", "4 to 32 GPUs" or "8 CPU cores"."""
    if not gpus:
        return f"{count_cores()} CPU cores"
    return f"{gpus} GPUs" if least in (None, gpus) else f"{least} to {gpus} GPUs"


def environment() -> dict[str, str]:
    """Return this process's environment with this code's folder in PYTHONPATH, for child processes."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path}


def share(gpus: int, per_device: int, nodes: Iterable[Mapping[str, float]]) -> Share:
    """Return the devices of a sweep. `nodes`: the resources "CPU" and "GPU" of each node of the cluster.

    A GPU gets as many cores as there are for each GPU on the node with the fewest, at most one, so that a node without GPUs
    changes nothing. Without GPUs, each core of the cluster is a device.
    """
    if not gpus:
        cores = int(sum(node.get("CPU", 0) for node in nodes))
        return Share(devices=max(1, cores), cpu=1, gpu=0, per_device=per_device)
    with_gpus = [node for node in nodes if node.get("GPU")]
    fewest = min((node.get("CPU", 0) / node["GPU"] for node in with_gpus), default=0)
    cpu = min(1.0, math.floor(100 * fewest) / 100)
    expected = min(gpus, number_of_gpus(with_gpus))
    return Share(devices=gpus, expected=expected, cpu=cpu, gpu=1, per_device=per_device)


@contextmanager
def cluster(
    gpus: int, per_device: int, address: str | None, drain: Drain | None = None, least: int | None = None
) -> Iterator[tuple[Share, Path]]:
    """Start a Ray cluster, or join the one at `address`. Yields the trials' share and a private folder, removed at the end.

    If the cluster has fewer than `least` GPUs it is waited for them (`await_gpus`); None: it needs all of `gpus` at once. Raises
    EnvironmentUnfit if it has too few or Ray does not start, StartInterrupted if `drain` gets a signal meanwhile.
    """
    # A short path, since socket paths are limited to 107 bytes, and private, since the folder contains the token.
    folder = Path(tempfile.mkdtemp(prefix="sweep-", dir="/tmp" if os.path.isdir("/tmp") else None))
    with _guarded(folder), _environment(folder, address):
        try:
            with drain.starting_ray() if drain else nullcontext():
                with shielded():
                    _start(folder, gpus, address)
                    if drain:
                        drain.listen()  # Ray's own handler of SIGTERM may end the process
                if least is not None:
                    await_gpus(least, gpus, _nodes)
            nodes = _nodes()
            found = number_of_gpus(nodes)
            if gpus > found and least is None:
                raise EnvironmentUnfit(f"--gpus {gpus}: the cluster has {found}")
            yield share(gpus, per_device, nodes), folder
        finally:
            _end_ray()


@contextmanager
def _guarded(folder: Path) -> Iterator[None]:
    """Start a process (`reaper.py`) that ends all processes of this sweep and removes `folder`, however this process ends."""
    command = [sys.executable, "-m", "orchestrator.execution.reaper", str(folder)]
    # Shielded and in its own session, so that no signal that ends this process ends it, too.
    with shielded():
        reaper = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment(), start_new_session=True)
    try:
        yield
    finally:
        assert reaper.stdin is not None
        reaper.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            reaper.wait(REAPER_SECONDS)


@contextmanager
def watched(on_loss: Callable[[], int]) -> Iterator[None]:
    """Watch the cluster. If no node answers for 30 s, call `on_loss` and end this process with the exit code that it returns.

    The main thread cannot be told, since it waits in Ray or Tune, for ever.
    """
    stop, answered = threading.Event(), threading.Event()
    for target, arguments in ((_ask, (stop, answered)), (_watch, (stop, answered, on_loss))):
        threading.Thread(target=target, args=arguments, name=f"cluster{target.__name__}", daemon=True).start()
    try:
        yield
    finally:
        stop.set()


def _start(folder: Path, gpus: int, address: str | None) -> None:
    import ray

    for attempt in range(1, ATTEMPTS + 1):
        try:
            _init(folder, gpus, address, attempt)
            break
        except Exception as error:  # Ray raises a plain Exception when it starts too slowly
            ray.shutdown()
            reason = clean_line(error).partition(". ")[0] or type(error).__name__
            if address:
                raise EnvironmentUnfit(f"cluster at {address} cannot be joined: {reason}") from None
            _kill_leftovers(folder)
            if attempt == ATTEMPTS:
                raise EnvironmentUnfit(f"Ray on this machine did not start in {ATTEMPTS} attempts: {reason}") from None
            log.warning("Ray did not start (%s); trying once more", reason)
    _clean_logs_of_ray()


def _end_ray() -> None:
    """Disconnect from Ray, and end its processes if this process started them.

    These do not receive SIGTERM (`shielded`), after which Ray would wait a second for each of them before it kills it.
    """
    import ray

    # Not a public interface; without it, the end takes five seconds longer.
    with suppress(AttributeError):
        node: Any = ray._private.worker._global_node
        kill = node.kill_all_processes
        node.kill_all_processes = lambda **options: kill(**{**options, "allow_graceful": False})
    ray.shutdown()


def _nodes() -> list[Mapping[str, float]]:
    """Return the resources of each node of the cluster."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _kill_leftovers(folder: Path) -> None:
    """Kill the processes of an attempt to start Ray, which would compete with those of the next one."""
    for pid in processes_of(folder, spared=os.getpid()):
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def _clean_logs_of_ray() -> None:
    """Take secrets out of what Ray logs in this process; it has logging handlers of its own."""
    for handler in logging.getLogger("ray").handlers:
        handler.addFilter(CleanRecords())


def _init(folder: Path, gpus: int, address: str | None, attempt: int) -> None:
    import ray

    runtime_env: dict[str, Any] = {"env_vars": {"PYTHONPATH": environment()["PYTHONPATH"], **WORKER_VARIABLES}}
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": "error", "runtime_env": runtime_env}
    if address:
        # Nodes need not have this code. Ray puts what it sends before all else that could be imported there.
        runtime_env["py_modules"] = [str(folder) for folder in code_folders()]
        ray.init(address=address, **common)
        return
    ray.init(
        address="local",
        num_cpus=count_cores(),
        num_gpus=gpus,
        include_dashboard=False,
        _temp_dir=str(folder / f"ray{attempt}"),
        **common,
    )


@contextmanager
def _environment(folder: Path, address: str | None) -> Iterator[None]:
    """Set Ray's environment variables (no telemetry, no console output, a token for this sweep); restore them at the end."""
    settings: dict[str, str | None] = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # Tune's snapshots are never read, since the ledger has everything
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
        "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        # Otherwise Ray ends this process with exit code 1 after 60 s without its head; `watched` ends it with a better one.
        "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
        # Variables of `ray job submit --runtime-env` may have names that are set here, too.
        "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",
    }
    if address is None:
        token = folder / "token"
        token.touch(mode=0o600)
        secret = secrets.token_hex(32)
        register_secret(secret)
        token.write_text(secret, encoding="ascii")
        settings |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_ADDRESS": None}
        settings["RAY_JOB_CONFIG_JSON_ENV_VAR"] = None  # of a job of another cluster, on which this process may run
    try:
        with changed({**{name: os.environ.get(name) for name in SET_BY_RAY}, **settings}):
            _read_authentication_again()
            yield
    finally:
        _read_authentication_again()


def _read_authentication_again() -> None:
    """Make Ray read its authentication mode and its token again if it is already imported.

    It reads them only once, so it may still use those of another cluster.
    """
    if "ray" not in sys.modules:
        return
    # Not a public interface; only a process with several clusters needs it.
    with suppress(ImportError, AttributeError):
        from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

        # The order matters: while the mode is "token", a thread of Ray ends the process if it finds no token.
        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()


def _ask(stop: threading.Event, answered: threading.Event) -> None:
    """Set `answered` each time that a node of the cluster answers. A call may block for minutes, when the cluster is lost."""
    import ray

    while not stop.wait(WATCH_SECONDS):
        with suppress(Exception):  # any exception means that Ray does not answer
            if any(node["Alive"] for node in ray.nodes()):
                answered.set()


def _watch(stop: threading.Event, answered: threading.Event, on_loss: Callable[[], int]) -> None:
    # Counts waits instead of comparing times, so that a process that was suspended takes nothing for lost.
    misses = 0
    while not stop.wait(WATCH_SECONDS):
        misses = 0 if answered.is_set() else misses + 1
        answered.clear()
        if misses > LOST_AFTER and not stop.is_set():
            log.error("the Ray cluster does not answer any more; the same command continues this sweep")
            code = on_loss()
            logging.shutdown()
            os._exit(code)
