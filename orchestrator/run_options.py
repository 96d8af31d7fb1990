"""The options of one run, made from the command line or by a test, and used by the plan, the forecast, the checks and the driver.

None stands for an option that was not given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

# Which finals of each cell keep their checkpoint, from which `export` makes a model.
Keep = Literal["all", "best", "none"]
KEEPS: tuple[Keep, ...] = get_args(Keep)


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The options of a run. Those of the first group override the space, so they give another sweep; the others do not."""

    # Names of the models, tasks and methods to use; None: all of the space. Models and known methods need not be in the space.
    models: Sequence[str] | None = None
    tasks: Sequence[str] | None = None
    methods: Sequence[str] | None = None
    # Configurations per cell (--trials).
    num_configurations: int | None = None
    # Fresh seeds for each winner (--seeds).
    final_seeds: int | None = None
    # Maximum number of epochs of a trial.
    epochs: int | None = None
    # Precision of matrix products: "fp32", "bf16" or "nf4".
    precision: str | None = None
    # Maximum number of training examples of a task; 0: all.
    train_examples: int | None = None
    # Other values of fields of the space, each as "PATH=VALUE" (--set).
    settings: Sequence[str] = ()

    # Most GPUs; 0 trains on the CPU.
    gpus: int = 0
    # The sweep starts as soon as there are so many GPUs; None: it needs all of `gpus`, and does not wait for them.
    least_gpus: int | None = None
    # Number of trials that share a GPU or a core; 0: on a GPU as many as use it fully, on a core one.
    trials_per_device: int = 0
    # Time budget of the sweep over all its drivers together, such as "40h".
    budget: str | None = None
    # Folder with GLUE as TSV files; None: GLUE comes from the Hub.
    data_dir: Path | None = None
    # Folder for ledgers, checkpoints and the default tracking store.
    out: Path = Path("runs")
    # Where checkpoints are kept: an absolute path or an address (`FileSystemStore`); None: in `out`.
    checkpoints: str | None = None
    # Where the report is written.
    report: Path = Path("reports")
    # Address of an MLflow store; None: sqlite in `out`.
    tracking_uri: str | None = None
    # The environment variable that named it; "" for the command line.
    tracking_from: str = ""
    # Name of the MLflow experiment of a new sweep; None: the name of the space.
    experiment: str | None = None
    # Whether MLflow records the use of this machine.
    system_metrics: bool = False
    # Address of a Ray cluster to join; None: start one.
    address: str | None = None
    # Finals whose checkpoint stays on disk: all, the best of each cell by validation score, or none.
    keep: Keep = "best"
    # The command that repeats this run.
    command: str = ""

    @property
    def fewest_gpus(self) -> int:
        """The number of GPUs with which the sweep starts."""
        return self.gpus if self.least_gpus is None else self.least_gpus
