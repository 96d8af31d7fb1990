"""The Ray Tune trainable: the device worker of one GPU, or of one CPU core, which stays as long as the sweep.

Tune places it, pins it to its device and restarts its process if it dies. Which trials of the sweep it trains, the driver says
through the mailbox (`trainables/worker/mailbox.py`), an actor on the driver's node. Tune's own checkpoints are empty: the device
worker writes one for each trial after every epoch, in a folder named by the trial's id, where any worker finds it.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search_spaces.redaction import clean_line
from trainables.training.activity import activity_count
from trainables.worker.checkpoint_store import read_files, write_files
from trainables.worker.file_system_store import open_store
from trainables.worker.mailbox import Mailbox, Needs
from trainables.worker.session import EPOCHS_AHEAD, WorkerSession
from trainables.worker.worker_environment import WorkerEnvironmentError, check_environment, is_folder_of

NAMESPACE = "peft_sweep"


class DeviceTrainable(tune.Trainable):
    """A device worker.

    `config`: "worker": its name; "mailbox": name of the mailbox; "environment": see `check_environment`; "storage": see
    `TrialPaths`, with "sweep", the sweep's id; "ping_seconds": time between two pings.
    """

    def setup(self, config: dict[str, Any]) -> None:
        return None

    def step(self) -> dict[str, Any]:
        """Train until the driver says that nothing is left."""
        gpus = ray.get_runtime_context().get_accelerator_ids().get("GPU") or []
        node = ray.util.get_node_ip_address()
        link = MailboxLink(self.config, node, gpus)
        # From here, because what follows may hang, too: it imports torch and opens the device.
        with link.pinging(self.config["ping_seconds"]):
            try:
                check_environment(self.config.get("environment", {}))
                if self.config.get("storage"):
                    open_store(self.config["storage"], self.config["sweep"]).check()
                worker = self.open_worker(gpus)
            except WorkerEnvironmentError as error:
                link.wait_unfit(clean_line(error))
            else:
                self._train(WorkerSession(link, worker, f"node {node}"))
            finally:
                link.close()
        return {"done": True}

    @staticmethod
    def _train(session: WorkerSession) -> None:
        from trainables.worker.device_worker import DeviceLost

        try:
            session.run()
        except DeviceLost as error:  # Ray expects an Exception
            raise RuntimeError(str(error)) from error

    @staticmethod
    def open_worker(gpus: list[str]) -> Any:
        """Return the device worker of this process, on the GPU that Ray gave it or on a core. Loads torch.

        Raises WorkerEnvironmentError if torch does not see that GPU.
        """
        import torch

        from trainables.worker.device_worker import open_device_worker

        if gpus and not torch.cuda.is_available():
            raise WorkerEnvironmentError(f"Ray gave this worker GPU {gpus[0]}, and torch finds no GPU that it can use")
        return open_device_worker(bool(gpus), EPOCHS_AHEAD)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        return None

    def load_checkpoint(self, checkpoint: Any) -> None:
        return None


class MailboxLink:
    """The worker's way to the driver, through the mailbox's actor.

    On a node that does not see the sweep's folder, tokens and checkpoints are in a temporary folder, and come and go through the
    mailbox; with --checkpoints, checkpoints come and go from and to that place on every node.
    """

    def __init__(self, config: Mapping[str, Any], node: str, gpus: list[str]):
        self._mailbox: Any = ray.get_actor(config["mailbox"], namespace=NAMESPACE)
        self._sender = {"worker": config["worker"], "process": uuid.uuid4().hex}
        self._about = {"node": node, "device": f"GPU {gpus[0]}" if gpus else "a core"}
        self._own: Path | None = None

    @contextmanager
    def pinging(self, seconds: float) -> Iterator[None]:
        """Within the block, a thread pings the driver every so many seconds. If the driver is lost, other calls raise that."""
        stop = threading.Event()

        def ping() -> None:
            while True:
                self._mailbox.ping.remote({**self._sender, **self._about, "activity": activity_count()})
                if stop.wait(seconds):
                    return

        threading.Thread(target=ping, name="ping", daemon=True).start()
        try:
            yield
        finally:
            stop.set()

    def orders(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = ray.get(self._mailbox.orders.remote({**self._sender, **self._about}))
        return found

    def report(self, messages: list[dict[str, Any]]) -> Mapping[str, bool]:
        verdicts = ray.get(self._mailbox.report.remote([{**message, **self._sender} for message in messages]))
        return {trial_id: goes_on for (_, trial_id), goes_on in verdicts.items()}

    def prepare(self, record: Mapping[str, Any]) -> Any:
        from trainables.worker.device_worker import Job

        job, sweep = Job.from_json(dict(record)), record.get("sweep", "")
        shared, storage = not sweep or is_folder_of(job.folder.parent.parent, sweep), record.get("storage")
        if shared and not storage:
            return job
        if self._own is None:
            self._own = Path(tempfile.mkdtemp(prefix="peft-sweep-"))
            atexit.register(self.close)
        tokens = job.data if shared else self._own / job.data.name
        if not shared and not tokens.is_file():
            tokens.write_bytes(ray.get(self._mailbox.content.remote(job.data)))
        store = open_store(storage, sweep) if storage else self
        return replace(job, data=tokens, folder=self._own / "checkpoints" / job.trial.id, store=store)

    def fetch(self, trial_id: str, folder: Path) -> None:
        files = ray.get(self._mailbox.fetch.remote(trial_id))
        if files:  # newer than what is here, if another node has trained the trial meanwhile
            write_files(folder, files)

    def store(self, trial_id: str, folder: Path) -> None:
        ray.get(self._mailbox.store.remote(trial_id, read_files(folder)))

    def close(self) -> None:
        """Delete the temporary folder."""
        if self._own:
            shutil.rmtree(self._own, ignore_errors=True)

    def wait_unfit(self, reason: str) -> None:
        """Tell the driver why this machine cannot train, and wait until it says that nothing is left."""
        self._about["unfit"] = reason
        while not self.orders()["close"]:
            pass


def open_mailbox(name: str, checkpoints: Path, tokens: Iterable[Path]) -> Any:
    """Start the mailbox of a sweep under this name and return its handle. It ends when the handle is deleted.

    `checkpoints`, `tokens`: see `Mailbox`. It runs on the driver's node, so that no other node takes it along when it is lost.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    # Large, because each worker may have two calls that wait for an answer.
    options = {"name": name, "namespace": NAMESPACE, "num_cpus": 0, "max_concurrency": 100_000}
    return ray.remote(Mailbox).options(**options, scheduling_strategy=here).remote(checkpoints, [*tokens])


class SweepsOfCluster:
    """What the sweeps on the cluster need. `name`: of the mailbox of this process's own sweep."""

    def __init__(self, name: str):
        self._name = name
        self._asked: dict[str, Any] = {}

    def exchange(self, needs: Needs) -> dict[str, Needs | None]:
        """Tell the needs of the own sweep. Return those of the others as they were at the last call, without waiting for answers.

        They are None for a sweep that has not answered.
        """
        found: dict[str, Needs | None] = {}
        for name, answer in self._asked.items():
            with suppress(RayError):
                found[name] = ray.get(answer, timeout=0)
        self._asked = {}
        for each in ray.util.list_named_actors(all_namespaces=True):
            if each["namespace"] == NAMESPACE:
                with suppress(ValueError, AttributeError):  # it ended just now, or is of another version
                    mailbox = ray.get_actor(each["name"], namespace=NAMESPACE)
                    if each["name"] == self._name:
                        mailbox.note_needs.remote(needs)
                    else:
                        self._asked[each["name"]] = mailbox.needs.remote()
        return {name: found.get(name) for name in self._asked}


def number_of_devices(kind: str) -> int:
    """Return how many devices of a kind the cluster has: "GPU", or "CPU" for cores."""
    return int(ray.cluster_resources().get(kind, 0))
