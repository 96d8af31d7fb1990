"""The Ray Tune side of a trial: one `step()` is one epoch. Loads torch only where a trial has its device to itself.

Such a trial trains in this very process, in a lane of its own. Where trials share a device, this is a light proxy: the lane is
an actor of its own (`trainables/host.py`), found through the registry, and found again when it dies. Actors are reused from
trial to trial, so everything costly happens lazily in `step`. Tune's own checkpoints stay empty: the lane writes one per
epoch under the trial's id, where a resumed sweep finds it whatever Tune remembers.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Protocol

from ray import tune

if TYPE_CHECKING:
    from trainables.lane import Lane

REPORT = "report"


class Place(Protocol):
    """Where a trial is trained."""

    def next(self) -> str:
        """The next epoch's report as JSON text."""

    def leave(self) -> None: ...


class TrialTrainable(tune.Trainable):
    """config: trial (JSON text), source, data, checkpoints (paths as text), registry (the name of its actor, or "")."""

    _place: Place | None = None
    _lane: Lane | None = None

    def setup(self, config: dict[str, Any]) -> None:
        self._place = None

    def step(self) -> dict[str, Any]:
        if self._place is None:
            self._place = self._enter()
        text = self._place.next()
        # One text instead of nested dicts: Tune flattens and copies every key of a result, predictions included.
        return {REPORT: text, "done": json.loads(text)["outcome"] is not None}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.cleanup()
        return True

    def cleanup(self) -> None:
        place, self._place = self._place, None
        if place is not None:
            place.leave()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        return None

    def load_checkpoint(self, checkpoint: Any) -> None:
        return None

    def _enter(self) -> Place:
        job = {**self.config, "trial": json.loads(self.config["trial"])}
        if self.config["registry"]:
            from trainables.host import Remote

            return Remote(job, self.config["registry"])
        from trainables.lane import Own, open_lane

        if self._lane is None:
            self._lane = open_lane(bool(os.environ.get("CUDA_VISIBLE_DEVICES", "0")))
        return Own(self._lane, job)
