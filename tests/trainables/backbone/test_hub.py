"""A model's revision can be pinned: it is what is downloaded, found in the cache without network, and recorded."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from orchestrator.command_line import exit_code_of
from orchestrator.exit_codes import ENVIRONMENT
from tests.fixtures.encoders import shard, write_tiny
from tests.fixtures.hub_server import hub_server
from trainables.backbone.backbone import Backbone
from trainables.backbone.hub import MissingModel
from trainables.backbone.models import check, fingerprint, local, peek, resolve, title

NAME = "owner/encoder"


@pytest.fixture(scope="module")
def versions(tmp_path_factory) -> dict[str, Path]:
    """Two encoders that differ in their weights alone."""
    folder = tmp_path_factory.mktemp("versions")
    return {name: write_tiny(folder / name, "bert", seed) for seed, name in enumerate(("old", "new"))}


@pytest.fixture
def server(versions, monkeypatch, tmp_path):
    """A Hub with both versions of one model, the newer one on its main branch, and an empty cache."""
    with hub_server() as hub:
        hub.put(NAME, "v1.0", versions["old"])
        hub.put(NAME, "refs/pr/7", versions["old"])
        hub.put(NAME, "main", versions["new"])
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )
        yield hub


def words_of(model):
    return Backbone.load(model, torch.device("cpu")).words.weight


def test_a_pinned_revision_is_downloaded_and_the_main_branch_without_one(server, versions):
    old, new = resolve(f"{NAME}@v1.0"), resolve(NAME)
    assert (old.fingerprint, new.fingerprint) == tuple(fingerprint(versions[name]) for name in ("old", "new"))
    assert (old.commit, new.commit) == (server.commits[NAME]["v1.0"], server.commits[NAME]["main"])
    assert (old.name, new.name) == (f"{NAME}@v1.0", NAME)
    assert not torch.equal(words_of(old), words_of(new))
    assert resolve(f"{NAME}@{old.commit}").fingerprint == resolve(f"{NAME}@refs/pr/7").fingerprint == old.fingerprint


def test_a_pinned_revision_is_found_in_the_cache_without_network(server, monkeypatch):
    pinned = [f"{NAME}@v1.0", f"{NAME}@{server.commits[NAME]['v1.0']}"]
    assert [peek(name) for name in pinned] == [None, None]
    old = resolve(pinned[0])
    asked = len(server.asked)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for name in pinned:
        assert local(name) == old.path
        assert resolve(name).fingerprint == old.fingerprint
        assert check(name, 128) == old.shape
    assert len(server.asked) == asked
    for name in (NAME, f"{NAME}@v2.0"):
        assert local(name) is None
        with pytest.raises(MissingModel, match=rf"model '{name}' is neither in the cache nor reachable"):
            resolve(name)


def test_weights_config_and_tokenizer_come_from_the_pinned_commit_alone(server):
    old = resolve(f"{NAME}@v1.0")
    files = [path for path in server.asked if "/resolve/" in path]
    assert {Path(path).name for path in files} >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert all(old.commit in path for path in files)


def test_a_revision_that_the_repository_lacks_is_bad_input(server):
    with pytest.raises(ValueError, match=r"model 'owner/encoder@v9': owner/encoder has no revision 'v9'"):
        resolve(f"{NAME}@v9")


def test_a_repository_that_the_hub_lacks_is_missing(server):
    with pytest.raises(MissingModel, match=r"model 'owner/other@v1\.0' is neither in the cache nor reachable"):
        resolve("owner/other@v1.0")


def test_a_gated_model_is_missing_until_access_is_given(server, versions, capsys):
    server.put("owner/gated", "main", versions["new"])
    server.gated.add("owner/gated")
    assert exit_code_of(lambda: resolve("owner/gated") and 0) == ENVIRONMENT == 4
    message = capsys.readouterr().err
    assert "model 'owner/gated': owner/gated is gated; request access on https://huggingface.co/owner/gated" in message
    assert "set HF_TOKEN to a token of the account" in message
    server.gated.clear()
    assert resolve("owner/gated").fingerprint == fingerprint(versions["new"])


def test_shards_are_downloaded_with_the_names_that_the_index_gives(server, versions, tmp_path):
    folder = shard(versions["old"], tmp_path / "sharded")
    (folder / "unrelated.safetensors").write_bytes(b"not of this model")
    server.put(NAME, "sharded", folder)
    found = resolve(f"{NAME}@sharded")
    assert len(list(found.path.glob("*-of-*.safetensors"))) > 1
    assert not (found.path / "unrelated.safetensors").exists()
    assert torch.equal(words_of(found), words_of(resolve(str(versions["old"]))))
    assert local(f"{NAME}@sharded") == found.path
    next(found.path.glob("*-00002-*")).unlink()
    assert local(f"{NAME}@sharded") is None


@pytest.mark.parametrize("revision", ["", " ", "..", "a/../b", "/x", "x/", "a b", "@", "\n", "-x"])
def test_an_impossible_revision_is_refused_before_it_is_looked_for(revision):
    for look in (peek, resolve):
        with pytest.raises(ValueError, match="is no revision; after @ comes a branch, a tag or a commit"):
            look(f"{NAME}@{revision}")


def test_minilm_has_no_revisions_and_its_hub_twin_has():
    with pytest.raises(ValueError, match="write sentence-transformers/all-MiniLM-L6-v2@v2"):
        peek("minilm@v2")


def test_a_folder_whose_name_has_an_at_sign_is_a_folder(versions, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(versions["old"], tmp_path / "encoder@home"))
    monkeypatch.chdir(tmp_path)
    for name in (str(folder), "./encoder@home", "encoder@home"):
        assert resolve(name).path == folder
        assert resolve(name).commit == ""
        assert title(name) == "encoder@home"
    (tmp_path / "owner").mkdir()
    folder = folder.rename(tmp_path / "owner" / "encoder@v1.0")
    assert local(f"{NAME}@v1.0") == folder
    with pytest.raises(ValueError, match="there is no such directory"):
        peek("./encoder@home")


def test_titles_name_the_revision():
    commit = "0123456789abcdef0123456789abcdef01234567"
    assert title("owner/name@v1.0") == "name@v1.0"
    assert title("owner/name@refs/pr/1") == "name@refs/pr/1"
    assert title(f"bert-base-uncased@{commit}") == "BERT-base@0123456"


def test_a_known_model_at_a_revision_has_no_shape_before_it_is_downloaded(server):
    assert peek("bert-base-uncased").layers == 12
    assert peek("bert-base-uncased@main") is None


def test_the_cache_keeps_a_damaged_index_for_the_checks_to_refuse(server, versions, tmp_path):
    folder = shard(versions["old"], tmp_path / "sharded")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    (folder / "model.safetensors.index.json").write_text(json.dumps({**index, "weight_map": {}}))
    server.put(NAME, "damaged", folder)
    with pytest.raises(ValueError, match="no index of weights can be read from it"):
        resolve(f"{NAME}@damaged")
