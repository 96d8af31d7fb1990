"""The Ray Tune side: a worker slot, whose `step()` trains one trial of the sweep from start to end.

If trials share a device, this process only waits: the device worker is an actor of its own
(`trainables/worker/ray_actors.py`), found through the registry, and replaced when it dies. A trial that has its device to
itself trains in this process; only then is torch loaded. Epochs are reported to the mailbox and not to Tune, which takes one
result at a time. Tune reuses the process for later trials, so everything expensive happens in `step`. Tune's own checkpoints
stay empty: the device worker writes one per epoch under the trial's id, where a resumed sweep finds it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import ray
from ray import tune

from trainables.worker.ray_actors import RemoteTrial, find_registry

if TYPE_CHECKING:
    from trainables.worker.device_worker import DeviceWorker


class TrialTrainable(tune.Trainable):
    """config: slot (its name), registry (the name of its actor), shared (whether trials share devices)."""

    _worker: DeviceWorker | None = None

    def setup(self, config: dict[str, Any]) -> None:
        return None

    def step(self) -> dict[str, Any]:
        registry = find_registry(self.config["registry"])
        job = ray.get(registry.job.remote(self.config["slot"]))
        if job is not None:
            RemoteTrial(job, registry).train() if self.config["shared"] else self._train(job, registry)
        return {"trial": job and job["id"], "done": True}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        return None

    def load_checkpoint(self, checkpoint: Any) -> None:
        return None

    def _train(self, job: dict[str, Any], registry: Any) -> None:
        """Train in this process, epoch by epoch, until the driver ends the trial."""
        from trainables.worker.device_worker import InProcessTrial, open_device_worker

        if self._worker is None:
            self._worker = open_device_worker(bool(os.environ.get("CUDA_VISIBLE_DEVICES", "0")))
        trial = InProcessTrial(self._worker, job)
        try:
            while ray.get(registry.report.remote([trial.next_report()]))[job["id"]]:
                pass
        finally:
            trial.remove()
