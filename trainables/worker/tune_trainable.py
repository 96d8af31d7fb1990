"""The Ray Tune side of a trial: a place that gets one trial from the sweep's desk, and whose only `step()` is all of it.

Where trials share a device this is a light proxy: the lane is an actor of its own (`trainables/worker/ray_actors.py`), found through the
registry, and found again when it dies. A trial that has its device to itself trains in this very process, in a lane of its
own; only then is torch loaded. Epochs go to the desk and not through Tune, which takes results one at a time.
Actors are reused from trial to trial, so everything costly happens lazily in `step`. Tune's own checkpoints stay empty: the
lane writes one per epoch under the trial's id, where a resumed sweep finds it whatever Tune remembers.
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

    _lane: DeviceWorker | None = None

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
        """Train in this process, epoch by epoch, as long as the driver wants the trial to go on."""
        from trainables.worker.device_worker import InProcessTrial, open_device_worker

        if self._lane is None:
            self._lane = open_device_worker(bool(os.environ.get("CUDA_VISIBLE_DEVICES", "0")))
        own = InProcessTrial(self._lane, job)
        try:
            while ray.get(registry.report.remote([own.next()]))[job["id"]]:
                pass
        finally:
            own.leave()
