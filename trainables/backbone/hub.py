"""Finds and downloads models of the Hugging Face Hub, whose names are "owner/name" or, of one revision, "owner/name@revision".

A revision is a branch, a tag or a commit. A branch can move to another commit; its fingerprint tells (`models.fingerprint`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from trainables.backbone import weight_files

TEXT_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.*",
    "merges.txt",
)
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")


class MissingModel(Exception):
    """Raised if the model is not on this machine and cannot be downloaded. The command line then ends with exit code 4."""


@dataclass(frozen=True)
class HubName:
    """A repository of the Hub, "owner/name" or "name", and the revision that its user pinned, None for the newest one."""

    repository: str
    revision: str | None = None


def parse(name: str) -> HubName:
    """Return the repository and the revision of "owner/name@revision". Raises ValueError for an impossible revision."""
    repository, at, revision = name.partition("@")
    if at and not _REVISION.fullmatch(revision):
        raise ValueError(
            f"model {name!r}: {revision!r} is no revision; after @ comes a branch, a tag or a commit, as in owner/name@v1.0"
        )
    return HubName(repository, revision if at else None)


def cached(name: str, found: HubName) -> Path | None:
    """Return the folder of the model in the Hub's cache, None if it is not complete there.

    `name` is the user's, for messages. Raises ValueError if the repository's name is not one that the Hub allows.
    """
    from huggingface_hub import try_to_load_from_cache

    try:
        config = try_to_load_from_cache(found.repository, "config.json", revision=found.revision)
    except ValueError:
        raise ValueError(f"model {name!r} is neither a directory nor a name that the Hub allows (owner/name)") from None
    if not isinstance(config, str) or not weight_files.complete(Path(config).parent):
        return None
    return Path(config).parent


def download(name: str, found: HubName, hint: str) -> Path:
    """Download the model and return the folder of its files. Raises MissingModel, whose text ends with `hint`, if that fails.

    `name` is the user's, for messages. Raises ValueError if the repository has no such revision.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RevisionNotFoundError

    try:
        # The names of shards are in the index, so that they can only be asked for after it.
        first = (*TEXT_FILES, weight_files.WEIGHTS, weight_files.INDEX)
        folder = Path(snapshot_download(found.repository, revision=found.revision, allow_patterns=list(first)))
        if (folder / weight_files.INDEX).is_file() and not (folder / weight_files.WEIGHTS).is_file():
            shards = weight_files.shard_names(folder)
            snapshot_download(found.repository, revision=commit(folder) or found.revision, allow_patterns=shards)
        return folder
    except RevisionNotFoundError:
        raise ValueError(
            f"model {name!r}: {found.repository} has no revision {found.revision!r}; give one of its branches, tags or commits"
        ) from None
    except GatedRepoError:
        raise MissingModel(
            f"model {name!r}: {found.repository} is gated; request access on https://huggingface.co/{found.repository}, and set "
            "HF_TOKEN to a token of the account that was given it"
        ) from None
    except (HfHubHTTPError, OSError) as error:  # without network, an OSError
        raise MissingModel(
            f"model {name!r} is neither in the cache nor reachable ({type(error).__name__}): download it on a machine with "
            f"network and copy the cache (HF_HOME), or {hint}"
        ) from None


def commit(folder: Path) -> str:
    """Return the commit of a folder in the Hub's cache, "" for any other folder."""
    return folder.name if folder.parent.name == "snapshots" and re.fullmatch("[0-9a-f]{40}", folder.name) else ""
