"""What both sides of the whole-sweep comparison train: one task, one method, the same trials, the same halving.

Written as Python for our side (a space file) and as JSON for the other. Standard library and the vocabulary at import.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from search_spaces.language import Budget, Recipe, Scalar, Space, choice, method

Precision = Literal["fp32", "bf16"]

SPACE = """from benchmarks.sweep_setting import Setting

space = {setting!r}.space()
"""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The grid lrs x batch_sizes is searched whole; `slots` trials run at once; `finals` seeds re-train the winner."""

    model: str
    task: str
    method: Literal["adapter", "lora"] = "adapter"
    r: int = 64
    alpha: int = 16  # of LoRA
    lrs: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    batch_sizes: tuple[int, ...] = (8, 16)
    epochs: int = 4
    grace: int = 1
    reduction: int = 2
    finals: int = 2
    slots: int = 2
    max_length: int = 128
    train_examples: int = 0
    test_examples: int = 0
    precision: Precision = "fp32"
    seed: int = 0

    def space(self) -> Space:
        """Early stopping is off and a rung's first score counts, as in Ray's ASHA."""
        settings: dict[str, Scalar] = {"r": self.r} if self.method == "adapter" else {"r": self.r, "alpha": self.alpha}
        return Space(
            title="Whole-sweep comparison",
            models=(self.model,),
            tasks=(self.task,),
            methods=(method(self.method, **settings),),
            search={"lr": choice(*self.lrs), "batch_size": choice(*self.batch_sizes)},
            recipe=Recipe(
                epochs=self.epochs,
                patience=self.epochs,
                max_length=self.max_length,
                train_examples=self.train_examples,
                test_examples=self.test_examples,
                precision=self.precision,
            ),
            budget=Budget(
                trials=len(self.lrs) * len(self.batch_sizes),
                final_seeds=self.finals,
                in_flight=self.slots,
                grace=self.grace,
                reduction=self.reduction,
                min_values=1,
            ),
            seed=self.seed,
        )

    def trials(self) -> list[dict[str, Scalar]]:
        """Every search trial (lr, batch_size, seed), in the order in which our side asks for them."""
        from orchestrator.search.sampler import open_study

        space = self.space()
        dimensions = space.dimensions_of(space.methods[0])
        study = open_study(dimensions, space.budget, space.seed, space.cells[0])
        return [{**study.ask(), "seed": self.seed} for _ in range(study.limit)]

    def write_space(self, folder: Path) -> Path:
        path = folder / "comparison.py"
        path.write_text(SPACE.format(setting=self), encoding="utf-8")
        return path

    def write_json(self, folder: Path) -> Path:
        path = folder / "setting.json"
        path.write_text(json.dumps({"setting": asdict(self), "trials": self.trials()}), encoding="utf-8")
        return path

    @classmethod
    def read_json(cls, path: Path) -> tuple[Setting, list[dict[str, Scalar]]]:
        record = json.loads(path.read_text(encoding="utf-8"))
        lists = {name: tuple(value) for name, value in record["setting"].items() if isinstance(value, list)}
        return cls(**record["setting"] | lists), record["trials"]
