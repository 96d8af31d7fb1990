"""The model card of an export, README.md: what the model does, how it is loaded, what it was trained on, and how good it is.

The interval of the score is that of this one model over the choice of test examples: percentiles of a bootstrap (Efron and
Tibshirani 1993). The report's intervals are of another question, the mean over seeds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from statistics import fmean, stdev

import numpy as np

from orchestrator.export.checking import Agreement
from orchestrator.export.kept_final import KeptFinal, finished_finals
from orchestrator.export.record import ExportRecord
from orchestrator.search.predictions import read_predictions
from search_spaces.quantization import precision_words
from search_spaces.redaction import redact
from trainables.tasks.forms.regression import REGRESSION
from trainables.tasks.metrics import FORMULAS
from trainables.tasks.tokens import TokenizerUse

DRAWS = 1000
# What transformers calls our precisions of matrix products, and the size of its blocks in 4 bits.
DTYPES = {"bf16": "bfloat16", "fp32": "float32"}
TRANSFORMERS_BLOCKS = 64
LIBRARIES = {"peft": "peft", "transformers": "transformers", "own": "peft-sweep"}


def text(
    kept: KeptFinal,
    record: ExportRecord,
    base: str,
    tokenizer: TokenizerUse,
    agreement: Agreement,
    command: str,
    plain: Sequence[str],
) -> str:
    """Return the card.

    `base`: the name by which other libraries find the pretrained model; `tokenizer`: how its tokenizer is used; `command`: the
    one that exported; `plain`: the modules that are not stored in 4 bits if the layers' linear maps are.
    """
    manifest, trial = kept.record.manifest, kept.final.trial
    method, model = manifest["methods"][trial.cell.method], manifest["models"][trial.cell.model]
    return "\n".join(
        (
            *_header(record, base),
            f"# {method['title']} of {model['title']} on {record.task.title}",
            "",
            _what(record),
            "",
            "## Use",
            "",
            *_use(record, base, tokenizer, plain),
            "",
            "## Score",
            "",
            *_score(kept, record),
            f"- {str(agreement).capitalize()} (checked when this folder was written"
            f"{'; the model was trained once more for it' if kept.retrained else ''}).",
            "",
            "## Training",
            "",
            *_training(kept, record, command),
            "",
        )
    )


def _header(record: ExportRecord, base: str) -> Iterator[str]:
    yield "---"
    yield f"library_name: {LIBRARIES[record.kind]}"
    yield f"base_model: {json.dumps(base)}"
    yield "pipeline_tag: text-classification"
    yield f"tags: [peft-sweep, {record.trial.method}]"
    yield "---"
    yield ""


def _what(record: ExportRecord) -> str:
    task = record.task
    columns = f"column{'s' * (len(record.columns) > 1)} " + " and ".join(f"`{name}`" for name in record.columns)
    if task.classes:
        names = ", ".join(f"{index} {json.dumps(name, ensure_ascii=False)}" for index, name in enumerate(task.classes))
        return f"It classifies texts ({columns} of the task's files) into {len(task.classes)} classes: {names}."
    unit = (
        "in the unit of the task's files"
        if record.task.form == REGRESSION
        else "standardised; `predict` turns them back with mean and std of `form_fields` in export.json"
    )
    return f"It predicts a number for texts ({columns} of the task's files). The head's outputs are {unit}."


def _use(record: ExportRecord, base: str, tokenizer: TokenizerUse, plain: Sequence[str]) -> Iterator[str]:
    length, second = record.trial.recipe.max_length, ", second_texts" if len(record.columns) == 2 else ""
    # Not every tokenizer returns by itself which of two texts a token belongs to.
    types = "return_token_type_ids=True, " if second and tokenizer.token_types > 1 else ""
    yield "    peft-sweep predict THIS_FOLDER new.csv"
    yield ""
    if record.kind == "own":
        yield "No other library loads these tensors. From Python, with peft-sweep installed:"
        yield ""
        yield "    from pathlib import Path"
        yield "    from orchestrator.export.predictor import Predictor"
        yield "    from trainables.tasks.task_data import Texts"
        yield ""
        yield '    predictor = Predictor(Path("THIS_FOLDER"))'
        yield f"    texts = Texts(first=texts, second={'second_texts' if second else 'None'}, labels=[0.0] * len(texts))"
        yield "    predictions = predictor.predictions(predictor.outputs(texts))"
        return
    yield f"or with {LIBRARIES[record.kind]} alone:"
    yield ""
    nf4, more = record.trial.recipe.nf4, ""
    yield "    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer"
    if nf4:
        more = ", quantization_config=quantization"
        yield "    from transformers import BitsAndBytesConfig"
    if record.kind == "peft":
        yield "    from peft import PeftModel"
    yield ""
    if nf4:
        yield "    quantization = BitsAndBytesConfig("
        yield f'        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant={nf4.double_quant},'
        yield f'        bnb_4bit_compute_dtype="{DTYPES[nf4.compute]}", llm_int8_skip_modules={json.dumps(plain)},'
        yield "    )"
    yield '    tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER")'
    if not tokenizer.pads:
        yield "    tokenizer.pad_token = tokenizer.eos_token"
    if second and tokenizer.separator:
        yield f"    second_texts = [{tokenizer.separator!r} + text for text in second_texts]"
    if record.kind == "peft":
        yield '    config = AutoConfig.from_pretrained("THIS_FOLDER")'
        yield f"    base = AutoModelForSequenceClassification.from_pretrained({json.dumps(base)}, config=config{more})"
        yield '    model = PeftModel.from_pretrained(base, "THIS_FOLDER").eval()'
    else:
        yield f'    model = AutoModelForSequenceClassification.from_pretrained("THIS_FOLDER"{more}).eval()'
    yield (
        f'    inputs = tokenizer(texts{second}, truncation="longest_first", max_length={length}, '
        f'padding=True, {types}return_tensors="pt")'
    )
    yield "    logits = model(**inputs).logits"
    if nf4:
        yield ""
        yield (
            "It was trained on a backbone in 4 bits. Without `quantization_config`, on the original weights, it predicts "
            "slightly differently. On CPUs with AVX-512 BF16 it does so in any case (DoRA very differently), by a kernel of "
            "bitsandbytes; `peft-sweep predict` computes as in training everywhere."
        )
        if nf4.block_size != TRANSFORMERS_BLOCKS:
            yield (
                f"So it does with it, too: transformers quantises in blocks of {TRANSFORMERS_BLOCKS} weights, and it was trained "
                f"with blocks of {nf4.block_size}. `peft-sweep predict` quantises as in training."
            )


def _score(kept: KeptFinal, record: ExportRecord) -> Iterator[str]:
    manifest, outcome, trial = kept.record.manifest, kept.outcome, kept.final.trial
    facts, metric = manifest["tasks"][trial.cell.task], record.task.metrics[0]
    interval = _interval(kept, record)
    yield (
        f"- {metric} on the test split: **{outcome.metrics[metric]:.2f} %**{interval}; {facts['test']} examples "
        f"({facts['test_source']}). Predicting the same for every example scores {facts['majority']:.2f} %."
    )
    others = ", ".join(f"{name} {value:.2f} %" for name, value in outcome.metrics.items() if name != metric)
    if others:
        yield f"- Other metrics there: {others}."
    finals = finished_finals(kept.record)
    scores = [f.outcome.metrics[metric] for f in finals if f.outcome and f.trial.search == trial.search]
    if len(scores) > 1:
        yield (
            f"- The same configuration with {len(scores)} seeds: {metric} {fmean(scores):.2f} % on average, standard "
            f"deviation {stdev(scores):.2f}. This model is seed {trial.seed}"
            f"{', the best of them on the validation split' if finals[0].trial == trial else ''}."
        )
    epoch, number = outcome.best_epoch, facts["validation"]
    yield f"- On the validation split ({number} examples): {outcome.best_score:.2f} % after epoch {epoch}."


def _interval(kept: KeptFinal, record: ExportRecord) -> str:
    """Return the score's 95 % interval over the choice of test examples as text, "" without recorded predictions."""
    found = read_predictions(kept.record.folder / kept.outcome.predictions) if kept.outcome.predictions else None
    if found is None:
        return ""
    predictions, labels = (np.asarray(values, np.float64) for values in found)
    random, formula = np.random.default_rng(0), FORMULAS[record.task.metrics[0]]
    drawn = (random.integers(0, len(labels), len(labels)) for _ in range(DRAWS))
    low, high = np.percentile([100 * formula(predictions[i], labels[i]) for i in drawn], [2.5, 97.5])
    return f" (95 % interval over the choice of test examples: {low:.2f} to {high:.2f})"


def _training(kept: KeptFinal, record: ExportRecord, command: str) -> Iterator[str]:
    manifest, trial = kept.record.manifest, kept.final.trial
    facts, model = manifest["tasks"][trial.cell.task], manifest["models"][trial.cell.model]
    budget = manifest["budget"]
    settings = ", ".join(f"{name} = {value}" for name, value in trial.hyperparameters.items())
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    commit = f"{manifest['commit'] or 'unknown'}{', with changes that are not committed' if manifest['dirty'] else ''}"
    yield f"- Pretrained model: {model['source']}, fingerprint {trial.weights}{_commit(model.get('commit', ''))}."
    yield (
        f"- Data: {facts['train']} train, {facts['validation']} validation and {facts['test']} test examples, fingerprint of "
        f"texts, labels and split {trial.split}; texts are cut to {trial.recipe.max_length} tokens."
    )
    yield f"- Method `{trial.method}`: {settings}. Seed {trial.seed}, precision {trial.recipe.precision}, trial {trial.id}."
    if trial.recipe.nf4:
        yield f"- Trained and tested with {precision_words(trial.recipe)}; embeddings, norms, biases and head are in fp32."
    yield (
        f"- Found by a search over {budget['trials']} configuration{'s' * (budget['trials'] > 1)} on the validation split, then "
        "trained on "
        f"{budget['final_seeds']} fresh seeds; the test split was used for these finals only. Sweep {manifest['sweep']}, "
        f"{manifest['device']}."
    )
    yield f"- Sweep's command: `{manifest['command']}`. Exported by: `{redact(command)}`."
    yield f"- Commit {commit}; {versions}."


def _commit(commit: str) -> str:
    return f", commit {commit} of the Hub" if commit else ""
