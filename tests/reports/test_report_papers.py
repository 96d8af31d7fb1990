"""Published numbers beside measured ones: which row stands under which, with which model, and what is said about levels."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.planning.sweep_manifest import _method, titles
from reports.build import summary
from reports.data.manifest import MethodFacts
from reports.data.papers import EVERY, SECONDS, PaperTable, find, nominal_percent, paper_of, papers
from reports.data.store import read
from reports.sections import paper
from reports.statistics.analysis import analyze
from search_spaces.language import Choice, Range
from search_spaces.loading import load, names
from search_spaces.spaces.text_classification import protocol
from tests.fixtures.bulk_store import write_bulk
from tests.fixtures.report_store import FakeTrial, final, manifest, new_store
from trainables.backbone.models import KNOWN_CONFIGS
from trainables.methods import METHODS
from trainables.tasks import TASKS

ROOT = Path(__file__).parents[2]
FACTS = Path(os.environ.get("PEFT_PAPER_FACTS", ROOT / "../shared/paper_tables.json"))


def measured(folder, methods, name, cells, *, tasks=("mrpc",), models=("minilm",)):
    """A sweep of the paper `name` with two finals in each of these cells (score of the second: one point more).

    `methods` maps a label to its method and fixed settings.
    """
    record = manifest(list(models), list(tasks), ["adapter"], paper=name)
    (model,) = record["methods"].values()
    record["methods"] = {
        label: {**model, "name": kind, "title": label, "fixed": fixed, "searched": {}}
        for label, (kind, fixed) in methods.items()
    }
    uri = new_store(folder)
    finals = [final(cell, seed, score + seed, name=f"{cell}{seed}") for cell, score in cells.items() for seed in (0, 1)]
    write_bulk(uri, record, finals, {})
    return analyze(read(uri, "sweep-1"))


def lines(sweep, table):
    return [tuple(map(str, row)) for row in paper.tables(sweep)[f"paper_{table}"].rows]


def test_the_papers_numbers_stand_beside_only_where_the_space_repeats_it(known_sweep, tmp_path):
    text = paper.text(known_sweep)
    assert (
        "| SparseAdapter | BERT_base | 1.2 % | 57.89 ± 1.9 | 84.39 ± 1.1 | 85.77 ± 0.8 | 71.96 ± 1.5 | 75.00 |" in text
    )
    assert "| ↳ *measured here: Fine-tuning* | BERT base | 18.3 % | – | 88.20 ± 0.3 | 89.00 | – | – |" in text
    assert (
        "**Levels are not comparable for MiniLM-L6**: the paper's numbers are those of BERT_base and RoBERTa_base."
        in text
    )
    uri = new_store(tmp_path)
    write_bulk(
        uri,
        manifest(["minilm"], ["mrpc"], ["adapter"], paper=""),
        [FakeTrial(cell="minilm/mrpc/adapter", name="a")],
        {},
    )
    without = summary(analyze(read(uri, "sweep-1")))
    assert "## The paper's own numbers" not in without
    assert "Nominal" not in without


@pytest.mark.parametrize(("table", "method", "average"), [(0, "full", 73.805), (1, "madapter", 80.0475)])
def test_transcribed_rows_recompute_the_papers_averages(table, method, average):
    row = next(row for row in papers()["madapter"].tables[table].rows if row.method == method)
    assert sum(score.mean for score in row.scores) / 4 == pytest.approx(average)


def test_a_table_shows_its_own_encoder_and_another_one_only_where_it_is_missing(tmp_path):
    cells = {"minilm/mrpc/full": 70.0, "bert-base-uncased/mrpc/full": 80.0}
    sweep = measured(tmp_path, {"full": ("full", {})}, "madapter", cells, models=("minilm", "bert-base-uncased"))
    bert, roberta = (lines(sweep, table)[1] for table in (1, 2))
    assert bert[:2] == ("↳ *measured here: full*", "BERT base")
    assert roberta[:2] == ("↳ *measured here: full*", "MiniLM-L6")
    assert (bert[4], roberta[4]) == ("80.50 ± 0.7", "70.50 ± 0.7")


def test_rows_of_one_method_are_told_apart_by_the_settings_in_which_they_differ(tmp_path):
    methods = {f"n{n}": ("madapter", {"r": 32, "n_mid": n}) for n in (1, 2)} | {"free": ("madapter", {"r": 32})}
    cells = {f"minilm/mrpc/{label}": 70.0 for label in methods}
    sweep = measured(tmp_path, methods, "madapter", cells)
    assert [row[0] for row in lines(sweep, 3)] == [
        "MAdapter, 1 middle layer",
        "↳ *measured here: n1 (mid_init = not recorded)*",
        "MAdapter, 2 middle layers",
        "↳ *measured here: n2 (mid_init = not recorded)*",
        "MAdapter, 3 middle layers",
        "↳ *measured here, not in the paper: free (mid_init = not recorded)*",
    ]


def test_a_setting_that_the_paper_does_not_state_stands_beside_what_was_measured_with_it(tmp_path):
    """The start of MAdapter's middle layers decides the paper's claim; a title that names it already is not doubled."""
    methods = {"plain": ("madapter", {"r": 32, "n_mid": 1}), "other": ("madapter", {"r": 32, "n_mid": 1})}
    sweep = measured(tmp_path, methods, "madapter/1", {f"minilm/mrpc/{label}": 70.0 for label in methods})
    facts = dict(sweep.manifest.methods)

    def shown(**changes):
        known = {label: replace(facts[label], **changes.get(label, {})) for label in facts}
        changed = replace(sweep, manifest=replace(sweep.manifest, methods=known))
        text = paper.text(changed)
        assert "The paper does not state `mid_init`, on which its claim may depend" in text
        return [row[0] for row in lines(changed, 1) if "madapter" in row[0] or "plain" in row[0] or "other" in row[0]]

    assert shown()[0] == "↳ *measured here: plain (mid_init = not recorded)*"
    both = shown(plain={"settings": {"mid_init": "identity"}}, other={"title": "other, mid_init = normal"})
    assert both == ["↳ *measured here: plain (mid_init = identity)*", "↳ *measured here: other, mid_init = normal*"]


def test_without_such_a_method_nothing_is_said_about_what_the_paper_leaves_open(tmp_path):
    sweep = measured(tmp_path, {"a": ("adapter", {"r": 64})}, "madapter/1", {"minilm/mrpc/a": 70.0})
    assert "does not state" not in paper.text(sweep)


def test_the_manifest_of_a_sweep_names_settings_that_a_space_leaves_at_their_defaults():
    record = method_facts(load("madapter_tables"))
    assert record["madapter"]["settings"] == {"r": 32, "init_scale": 0.01, "n_mid": 1, "mid_init": "identity"}
    assert record["madapter_normal"]["settings"]["mid_init"] == "normal"
    searched = method_facts(load("glue_madapter"))["madapter"]
    assert searched["settings"] == {"init_scale": 0.01, "mid_init": "identity"}


def method_facts(space):
    return {e.label: _method(space, e, title) for e, title in zip(space.methods, titles(space), strict=True)}


@pytest.mark.parametrize(
    ("name", "tasks", "table"),
    [("houlsby_tradeoff", ("cola",), "tradeoff"), ("houlsby_text", ("cola", "mrpc"), "text")],
)
def test_cola_is_shown_in_accuracy_where_the_paper_prints_accuracy(name, tasks, table, tmp_path):
    record = manifest(["minilm"], list(tasks), ["full"], paper=name)
    uri = new_store(tmp_path)
    finals = [
        final(f"minilm/{task}/full", seed, None, state="DONE", test={"matthews": 50.0, "accuracy": 80.0 + seed})
        for task in tasks
        for seed in (0, 1)
    ]
    write_bulk(uri, record, finals, {})
    sweep = analyze(read(uri, "sweep-1"))
    printed = papers()[name].tables[0]
    column = next(i for i, c in enumerate(printed.columns) if c.task in ("cola", EVERY))
    assert "accuracy" in printed.columns[column].title
    row = next(row for row in lines(sweep, table) if row[0].startswith("↳"))
    assert row[2 + printed.has_shares + column].startswith("80.50")


def test_a_control_with_other_settings_stands_apart_and_has_no_nominal_share(tmp_path):
    methods = {"a64": ("adapter", {"r": 64}), "a32": ("adapter", {"r": 32}), "any": ("adapter", {})}
    sweep = measured(tmp_path, methods, "madapter", {f"minilm/mrpc/{label}": 70.0 for label in methods})
    shown = [row[0] for row in lines(sweep, 1)]
    place = shown.index("Adapter")
    assert shown[place + 1 : place + 3] == ["↳ *measured here: a64*", "↳ *measured here: any*"]
    assert shown[-1] == "↳ *measured here, not in the paper: a32*"
    assert [nominal_percent(sweep.manifest, label) for label in methods] == ["2.0 % at r = 64", "", "2.0 % at r = 64"]


def test_a_searched_setting_is_a_row_of_its_own(tmp_path):
    methods = {"best": ("adapter", {}), "r64": ("adapter", {"r": 64})}
    cells = {f"minilm/{task}/{label}": 70.0 for label in methods for task in ("mrpc", "rte")}
    sweep = measured(tmp_path, methods, "houlsby_glue", cells, tasks=("mrpc", "rte"))
    assert lines(sweep, "glue")[1:] == [
        ("Adapter, best size per task", "BERT_large", "3.6 %", "80.00"),
        ("↳ *measured here: best*", "MiniLM-L6", "4.40 %", "70.50"),
        ("Adapter, r = 64", "BERT_large", "–", "79.60"),
        ("↳ *measured here: r64*", "MiniLM-L6", "4.40 %", "70.50"),
    ]


def test_a_mean_over_tasks_waits_for_all_of_them(tmp_path):
    sweep = measured(
        tmp_path, {"full": ("full", {})}, "houlsby_glue", {"minilm/mrpc/full": 70.0}, tasks=("mrpc", "rte")
    )
    assert [row[0] for row in lines(sweep, "glue")] == ["Fine-tuning", "Adapter, best size per task", "Adapter, r = 64"]


def test_seconds_per_epoch_and_other_metrics_have_their_columns(tmp_path):
    cell = "minilm/mrpc/lora"
    record = manifest(["minilm"], ["mrpc"], ["adapter"], paper="nsmc")
    record["tasks"] = {"nsmc_150k": record["tasks"]["mrpc"]}
    record["methods"] = {"lora": {**record["methods"]["adapter"], "name": "lora", "fixed": {"r": 64, "lr": 2e-5}}}
    scores = {"accuracy": 70.0, "precision": 60.0, "recall": 50.0, "f1": 55.0}
    trial = replace(final(cell, 0, 70.0, test=scores), cell="minilm/nsmc_150k/lora")
    uri = new_store(tmp_path)
    write_bulk(uri, record, [trial], {})
    row = lines(analyze(read(uri, "sweep-1")), 1)
    assert row[2] == ("LoRA, r = 64", "bert-base-multilingual-cased", "660.00", "72.60", "74.50", "69.20", "71.10")
    assert row[3][1:] == ("MiniLM-L6", "36.00", "70.00", "60.00", "50.00", "55.00")


def test_words_stand_where_the_paper_prints_no_number(tmp_path):
    sweep = measured(tmp_path, {"a": ("adapter", {"r": 32})}, "madapter", {"minilm/mrpc/a": 70.0})
    assert lines(sweep, "figure_2")[:3] == [
        ("Adapter, r = 32", "RoBERTa_base", "lower"),
        ("↳ *measured here: a*", "MiniLM-L6", "70.50 ± 0.7"),
        ("MAdapter, r' = 16", "RoBERTa_base", "higher"),
    ]


def tables():
    return [(name, table) for name, found in papers().items() for table in found.tables]


@pytest.mark.parametrize(
    ("name", "table"), tables(), ids=lambda value: value.name if isinstance(value, PaperTable) else value
)
def test_every_fact_names_methods_tasks_metrics_and_encoders_that_exist(name, table):
    assert table.encoder in ("", *KNOWN_CONFIGS)
    for row in table.rows:
        assert set(row.settings) <= {"lr", *METHODS[row.method]().settings()}
    for column in table.columns:
        if column.task not in ("", EVERY):
            assert column.metric in (SECONDS, *TASKS[column.task].metrics)


def fixed_of(space, entry):
    return {key: value for key, value in space.values_of(entry).items() if not isinstance(value, Choice | Range)}


@pytest.mark.parametrize("name", names())
def test_a_space_that_names_a_paper_repeats_a_row_of_each_table_or_of_most(name):
    space = protocol(["agreement"]) if name == "text_classification" else load(name, METHODS)
    if not space.paper:
        return
    facts = [
        MethodFacts(
            name=e.name,
            title=e.label,
            kind="",
            family="",
            paper="",
            fixed=fixed_of(space, e),
            searched={},
            settings={},
            ablated=False,
            removable=False,
        )
        for e in space.methods
    ]
    found = find(space.paper).tables
    assert len(found) == (len(space.paper.split(",")) if "/" in space.paper else len(papers()[space.paper].tables))
    beside = [any(t.has(row, one) for row in t.rows for one in facts) for t in found]
    assert sum(beside) >= len(beside) / 2
    assert set(space.models) <= {t.encoder for t in found}


def test_a_space_may_repeat_some_of_a_papers_tables_and_keeps_its_nominal_shares(tmp_path):
    sweep = measured(tmp_path, {"full": ("full", {})}, "madapter/2,3", {"minilm/mrpc/full": 70.0})
    assert list(paper.tables(sweep)) == ["paper_2", "paper_3"]
    assert "Table 1" not in paper.text(sweep).replace("Tables 1 to 3", "")
    assert nominal_percent(sweep.manifest, "full") == "100.0 %"


def test_a_paper_that_is_not_known_changes_nothing(tmp_path):
    sweep = measured(tmp_path, {"full": ("full", {})}, "unheard_of", {"minilm/mrpc/full": 70.0})
    assert paper_of(sweep.manifest) is None
    assert (paper.text(sweep), paper.tables(sweep)) == ("", {})


@pytest.mark.skipif(
    not FACTS.is_file(), reason="needs the transcription that this file was made from: set PEFT_PAPER_FACTS"
)
def test_the_facts_are_those_of_the_transcription():
    records = json.loads(FACTS.read_text(encoding="utf-8"))["records"]
    known = {
        (
            r["source_document"],
            r["table"],
            r.get("method_id"),
            r["task"].lower().replace("-", ""),
            r["metric"].split("_")[0],
        ): r
        for r in records
    }
    ids = {"full": "full_fine_tuning", "adapter": "houlsby_r64", "sparse_adapter": "sparse_adapter_snip_prune40_r64"}
    checked = 0
    for table in papers()["madapter"].tables[:2]:
        for row in table.rows:
            for column, score in zip(table.columns, row.scores, strict=True):
                found = [
                    r for key, r in known.items()
                    if key[:2] == ("000", table.name) and key[3] == column.task and (
                        key[2] == ids.get(row.method) or (row.method == "madapter" and key[2].startswith("madapter"))
                    )
                ]  # fmt: skip
                assert [(r["mean"], r["std"], r["params_percent"]) for r in found] == [
                    (score.mean, score.std, row.percent)
                ]
                checked += 1
    assert checked == 32
