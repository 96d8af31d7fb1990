"""The Ray Tune trainable: a worker slot, of which each call of `step()` trains one trial of the sweep from start to end.

If trials share a device, this process only waits: the trial trains in a device worker that is an actor of its own
(`trainables/worker/ray_actors.py`), which the registry finds, and replaces if it dies. A trial that does not share its device
trains in this process, which only then loads torch. Epochs are reported to the mailbox and not to Tune, which processes one
result at a time. An error of the machine is reported to the mailbox, too: the trial has no result then. Tune reuses the process
for later trials, so all expensive work is in `step` and not in `setup`. Tune's own checkpoints are empty: the device worker
writes a checkpoint after every epoch, in a folder named by the trial's id, where a resumed sweep finds it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import ray
from ray import tune

from search_spaces.redaction import clean_line, without_secrets
from trainables.worker.ray_actors import RemoteTrial, find_registry
from trainables.worker.worker_environment import as_environment_error

if TYPE_CHECKING:
    from trainables.worker.device_worker import DeviceWorker


class TrialTrainable(tune.Trainable):
    """A worker slot. `config`: "slot": its name; "registry": name of the registry's actor; "shared": do trials share devices?"""

    _worker: DeviceWorker | None = None

    def setup(self, config: dict[str, Any]) -> None:
        return None

    def step(self) -> dict[str, Any]:
        registry = find_registry(self.config["registry"])
        job = ray.get(registry.job.remote(self.config["slot"]))
        if job is not None:
            try:
                RemoteTrial(job, registry).train() if self.config["shared"] else self._train(job, registry)
            except Exception as error:
                # Ray wraps an error of another process, whose own error is its `cause`.
                fault = as_environment_error(getattr(error, "cause", None) or error)
                if fault is None:
                    with without_secrets():
                        raise
                where = clean_line(f"node {ray.util.get_node_ip_address()}: {fault}")
                ray.get(registry.report.remote([{"id": job["id"], "environment_error": where}]))
        return {"trial": job and job["id"], "done": True}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        return None

    def load_checkpoint(self, checkpoint: Any) -> None:
        return None

    def _train(self, job: dict[str, Any], registry: Any) -> None:
        """Train the trial in this process, epoch by epoch, until the driver's answer to a report ends it."""
        from trainables.worker.device_worker import InProcessTrial, open_device_worker

        if self._worker is None:
            self._worker = open_device_worker(bool(os.environ.get("CUDA_VISIBLE_DEVICES", "0")))
        trial = InProcessTrial(self._worker, job)
        try:
            while ray.get(registry.report.remote([trial.next_report()]))[job["id"]]:
                pass
        finally:
            trial.remove()
