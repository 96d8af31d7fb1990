"""Classification tasks in your own CSV files, with adapters, top layers and full fine-tuning as in Houlsby et al. 2019.

Every file ./tasks/NAME.csv is a task with the columns `text` and `label`; ./tasks/NAME.test.csv is its test split, if it
exists. For other columns, files or encoders, write a space of your own:

    from search_spaces.language import FileTask
    from search_spaces.spaces.text_classification import protocol

    space = protocol([FileTask(name="queues", train="queues.csv", text="message", label="queue")])
"""

from collections.abc import Sequence
from pathlib import Path

from search_spaces.language import Budget, FileTask, Recipe, Space, choice, method

FOLDER = Path("tasks")
TEST = ".test"


def protocol(
    tasks: Sequence[str | FileTask], models: Sequence[str] = ("bert-base-uncased",), layers: int = 12
) -> Space:
    """Return the space that applies the paper's protocol to these tasks, for encoders with `layers` layers.

    Twelve configurations per cell are searched: the whole grid of full fine-tuning, and 12 of the 72 or 96 points of the other
    methods' grids, which the paper searches completely. The best epoch is tested; no trial is stopped early.
    """
    tops = [k for k in (1, 2, 3, 5, 7, 9, 11, 12) if k <= layers]
    return Space(
        title="Houlsby et al. 2019: text classification",
        models=tuple(models),
        tasks=tuple(tasks),
        methods=(
            method("full"),
            method("top_layers", k=choice(*tops)),
            method("adapter", r=choice(2, 4, 8, 16, 32, 64)),
        ),
        search={"lr": choice(1e-5, 3e-5, 1e-4, 3e-3), "batch_size": 32, "epochs": choice(20, 50, 100)},
        recipe=Recipe(epochs=100, patience=100, weight_decay=0.01, eps=1e-6),
        budget=Budget(trials=12, final_seeds=3, grace=100),
        paper="houlsby_text",
    )


def tables(folder: Path, text: str = "text", label: str = "label") -> list[FileTask]:
    """Return a task for every NAME.csv in the folder, named NAME, with its NAME.test.csv. Raises ValueError if there is none."""
    trains = [path for path in sorted(folder.glob("*.csv")) if not path.stem.endswith(TEST)]
    if not trains:
        raise ValueError(
            f"{folder.absolute()} holds no NAME.csv with the columns {text!r} and {label!r}; put the tasks there, or write a "
            "space of your own that calls protocol([FileTask(...)]) of search_spaces.spaces.text_classification"
        )
    tests = [path.with_name(f"{path.stem}{TEST}.csv") for path in trains]
    return [
        FileTask(
            name=train.stem,
            train=str(train.absolute()),
            test=str(test.absolute()) if test.is_file() else None,
            text=text,
            label=label,
        )
        for train, test in zip(trains, tests, strict=True)
    ]


def space() -> Space:
    return protocol(tables(FOLDER))
