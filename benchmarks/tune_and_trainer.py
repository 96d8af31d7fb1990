"""What a user would do without this project: Ray Tune with ASHA, one process per trial, each with Hugging Face's Trainer.

    python -m benchmarks.tune_and_trainer SETTING.json --padding longest --data-dir ../shared/data/glue --out FOLDER

Kept as fast as a plain script can be: tokenised once for all trials, actors and their imports reused, one thread per trial, no
checkpoints, logs or progress bars, fused AdamW. Heavy imports happen where they are used, so that the driver has none of them.
Prints one line of JSON: when the trials began and ended, and what they reached.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.sweep_setting import Setting
from trainables.backbone.models import Model, resolve
from trainables.tasks.forms.form import Form
from trainables.tasks.forms.regression import Regression
from trainables.tasks.metrics import compute_metrics
from trainables.tasks.task_data import Loaded, Task, Texts
from trainables.tasks.task_loading import load

Examples = list[dict[str, Any]]
Splits = tuple[Any, dict[str, Examples]]
PADDINGS = ("longest", "128")
EVALUATION_BATCH = 32
FLAGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "HF_HUB_OFFLINE": "1",
}


def read_splits(loaded: Loaded, model: Model, setting: Setting, padding: str) -> Splits:
    """The tokenizer, and every example tokenised once for all trials."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model.path)
    parts = {"train": loaded.train, "validation": loaded.validation, "test": loaded.test}
    kind = float if isinstance(loaded.task.form, Regression) else int
    return tokenizer, {
        name: tokenise(texts, tokenizer, setting.max_length, padding, kind, loaded.task.form)
        for name, texts in parts.items()
    }


def tokenise(texts: Texts, tokenizer: Any, max_length: int, padding: str, kind: type, form: Form) -> Examples:
    """Examples with their encoded labels as `kind`; padded to `max_length` already here where that is asked for."""
    encoded = tokenizer(
        texts.first,
        texts.second,
        truncation=True,
        max_length=max_length,
        padding="max_length" if padding == "128" else False,
    )
    return [
        {**{k: v[i] for k, v in encoded.items()}, "label": kind(label)}
        for i, label in enumerate(form.encode(texts.labels))
    ]


def network_of(setting: Setting, model: Model, outputs: int) -> Any:
    """The encoder from its folder with a new head and the method; the rest frozen."""
    from transformers import AutoModelForSequenceClassification

    from benchmarks.plain_loop import insert_adapters

    network = AutoModelForSequenceClassification.from_pretrained(model.path, num_labels=outputs)
    if setting.method == "lora":
        from peft import LoraConfig, TaskType, get_peft_model

        targets = ["query", "value"]
        config = LoraConfig(task_type=TaskType.SEQ_CLS, r=setting.r, lora_alpha=setting.alpha, target_modules=targets)
        return get_peft_model(network, config)
    insert_adapters(network, model, setting.r)
    return network


def trainer_of(config: dict[str, Any], setting: Setting, model: Model, task: Task, splits: Splits, padding: str) -> Any:
    """The Trainer of one trial: config holds lr, batch_size and seed."""
    from transformers import DataCollatorWithPadding, PrinterCallback, Trainer, default_data_collator, set_seed
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    set_seed(config["seed"])
    tokenizer, examples = splits
    trainer = Trainer(
        model=network_of(setting, model, task.outputs),
        args=arguments_of(config, setting),
        train_dataset=examples["train"],
        eval_dataset=examples["validation"],
        data_collator=default_data_collator if padding == "128" else DataCollatorWithPadding(tokenizer),
        compute_metrics=scorer(task),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def train(config: dict[str, Any], splits: Splits, trainer_for: Callable[[dict[str, Any], Splits], Any]) -> None:
    """One trial in its own process; a final is tested after its last epoch."""
    import torch
    from ray import tune

    torch.set_num_threads(1)
    trainer, report = trainer_for(config, splits), reporter()
    trainer.add_callback(report)
    trainer.train()
    if config["final"]:
        test = trainer.predict(splits[1]["test"]).metrics["test_score"]
        tune.report({**report.last, "time": time.time(), "test": test})


def arguments_of(config: dict[str, Any], setting: Setting) -> Any:
    from transformers import TrainingArguments

    recipe = setting.space().recipe
    return TrainingArguments(
        output_dir="trainer",
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=config["batch_size"],
        per_device_eval_batch_size=EVALUATION_BATCH,
        learning_rate=config["lr"],
        weight_decay=recipe.weight_decay,
        warmup_steps=recipe.warmup,
        lr_scheduler_type="linear",
        optim="adamw_torch_fused",
        max_grad_norm=recipe.clip,
        bf16=setting.precision == "bf16",
        eval_strategy="epoch",
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
        seed=config["seed"],
    )


def scorer(task: Task) -> Callable[[Any], dict[str, float]]:
    def score(predictions: Any) -> dict[str, float]:
        outputs = predictions.predictions.reshape(len(predictions.label_ids), -1)
        return {"score": compute_metrics(task, outputs, predictions.label_ids.astype("float32")).score}

    return score


def reporter() -> Any:
    """A callback that tells Tune the best score so far after every epoch."""
    from ray import tune
    from transformers import TrainerCallback

    class Reporter(TrainerCallback):
        best = -1e9

        def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            self.began = time.time()

        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **more: Any) -> None:
            self.best = max(self.best, metrics["eval_score"])
            self.last = {"score": self.best, "epoch": round(state.epoch), "began": self.began, "time": time.time()}
            tune.report(self.last)

    return Reporter()


def run_trials(trainable: Any, trials: list[dict[str, Any]], setting: Setting, name: str, out: Path) -> list[Any]:
    """Results of all trials, searched ones halved by Ray's ASHA, finals left alone. Raises RuntimeError if one failed."""
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

    halving = ASHAScheduler(
        time_attr="epoch",
        metric="score",
        mode="max",
        max_t=setting.epochs,
        grace_period=setting.grace,
        reduction_factor=setting.reduction,
    )
    grid = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space={"trial": tune.grid_search(trials)},
        tune_config=tune.TuneConfig(
            scheduler=FIFOScheduler() if trials[0]["final"] else halving,
            reuse_actors=True,
            max_concurrent_trials=setting.slots,
        ),
        run_config=tune.RunConfig(name=name, storage_path=str(out), verbose=0),
    ).fit()
    if grid.errors:
        raise RuntimeError(f"{len(grid.errors)} trials failed: {grid.errors[0]}")
    return [result.metrics for result in grid]


def sweep(setting: Setting, trials: list[dict[str, Any]], loaded: Loaded, padding: str, out: Path) -> dict[str, Any]:
    """Search, then the winner on fresh seeds."""
    import ray
    from ray import tune

    model = resolve(setting.model)
    splits = read_splits(loaded, model, setting, padding)
    ray.init(
        address="local",
        num_cpus=setting.slots,
        include_dashboard=False,
        _temp_dir=str(out / "ray"),
        log_to_driver=False,
        logging_level="error",
    )

    def trial(config: dict[str, Any], splits: Splits) -> None:
        train(config["trial"], splits, lambda one, of: trainer_of(one, setting, model, loaded.task, of, padding))

    trainable = tune.with_parameters(trial, splits=splits)
    searched = run_trials(trainable, [{**t, "final": False} for t in trials], setting, "search", out)
    winner = max(searched, key=lambda metrics: metrics["score"])["config"]["trial"]
    seeds = range(setting.seed + 1, setting.seed + 1 + setting.finals)
    finals = run_trials(trainable, [{**winner, "seed": s, "final": True} for s in seeds], setting, "finals", out)
    ray.shutdown()
    return {
        "began": min(m["began"] for m in searched),
        "searched": max(m["time"] for m in searched),
        "ended": max(m["time"] for m in finals),
        "search_epochs": [m["epoch"] for m in searched],
        "final_epochs": [m["epoch"] for m in finals],
        "best_score": max(m["score"] for m in searched),
        "test_scores": [m["test"] for m in finals],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("setting", type=Path, help="as Setting.write_json writes it")
    parser.add_argument("--padding", choices=PADDINGS, required=True)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    os.environ.update(FLAGS)
    setting, trials = Setting.read_json(arguments.setting)
    loaded = load(
        setting.task,
        data_dir=arguments.data_dir,
        folder=Path(),
        train_examples=setting.train_examples,
        test_examples=setting.test_examples,
    )
    print(json.dumps(sweep(setting, trials, loaded, arguments.padding, arguments.out)))


if __name__ == "__main__":
    main()
