"""What a model on the hub consists of, at a pinned revision, and where to fetch it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .model_check import SINGLE
from .model_folders import ModelFolderError

_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9][A-Za-z0-9_.-]{0,95}")
_SMALL = re.compile(r"(?!\.)[^/\\:]+\.(json|jinja|txt|model)|LICENSE[^/\\:]*")
_WEIGHTS = re.compile(r"(?!\.)[^/\\:]+\.safetensors")
_HTTP_PROBLEMS = {
    "GatedRepoError": (
        "access has to be asked for",
        "Accept its terms on the hub, then log in with `hf auth login` or set HF_TOKEN",
    ),
    "RepositoryNotFoundError": (
        "the hub has no such model, or it is private",
        "Check the name, or log in with `hf auth login`",
    ),
    "RevisionNotFoundError": (
        "the hub has no such revision",
        "Give a branch, a tag or a commit of this model",
    ),
}


@dataclass(frozen=True)
class HubFile:
    """A file of a model: its name, its size in bytes, and the hash of a large one."""

    name: str
    size: int
    sha256: str | None
    url: str


@dataclass(frozen=True)
class HubModel:
    """A model at one commit. `small` files are needed to know which `weights` are."""

    repo: str
    revision: str
    small: tuple[HubFile, ...]
    weights: tuple[HubFile, ...]
    headers: dict[str, str] = field(repr=False)  # they may hold a token


def by_hand(repo: str, target: str) -> str:
    """What to do without a hub."""
    return (
        f"Download {repo} on a machine that can, for example with `hf download {repo} --local-dir"
        f" FOLDER`, and copy the folder's files to {target}"
    )


def look_up(repo: str, revision: str, target: str, endpoint: str | None) -> HubModel:
    """Ask the hub which files a model has at a revision.

    Args:
        target: where the files will go, for messages.
        endpoint: the hub's address; that of huggingface_hub (``HF_ENDPOINT``) unless given.

    Raises:
        ModelFolderError: no such model or revision, no access, offline, or unreachable.
    """
    if not _REPO.fullmatch(repo):
        problem = f"'{repo}' is not the name of a model on the hub"
        raise ModelFolderError(target, problem, "Write it like Qwen/Qwen3-VL-4B-Instruct")
    try:
        from huggingface_hub import HfApi, constants, hf_hub_url
        from huggingface_hub.utils import build_hf_headers
    except ImportError:
        problem = "the huggingface_hub package is not installed"
        raise ModelFolderError(target, problem, by_hand(repo, target)) from None
    if constants.HF_HUB_OFFLINE:
        problem = f"{repo} is not here, and HF_HUB_OFFLINE forbids to download it"
        raise ModelFolderError(target, problem, by_hand(repo, target))
    api = HfApi(endpoint=endpoint)
    try:
        info = api.model_info(repo, revision=revision, files_metadata=True, timeout=20)
    except Exception as error:
        # The classes of network errors differ between the versions of huggingface_hub.
        explained = _explained(error, repo, revision, target, api.endpoint)
        if explained is None:
            raise
        raise explained from None
    if not info.sha:
        problem = f"{api.endpoint} does not say which commit {revision} of {repo} is"
        raise ModelFolderError(target, problem, by_hand(repo, target))
    small, weights = [], []
    for sibling in info.siblings or ():
        name, size = sibling.rfilename, sibling.size
        kind = small if _SMALL.fullmatch(name) else weights if _WEIGHTS.fullmatch(name) else None
        if kind is None or size is None:
            continue
        url = hf_hub_url(repo, name, revision=info.sha, endpoint=api.endpoint)
        sha256 = sibling.lfs["sha256"] if sibling.lfs else None
        kind.append(HubFile(name, size, sha256, url))
    if not weights:
        problem = f"{repo} has no safetensors weights (such as {SINGLE}) on the hub"
        raise ModelFolderError(target, problem, "Choose a model that has")
    return HubModel(repo, info.sha, tuple(small), tuple(weights), build_hf_headers())


def _explained(
    error: Exception, repo: str, revision: str, target: str, endpoint: str
) -> ModelFolderError | None:
    names = [kind.__name__ for kind in type(error).__mro__]
    for name, (problem, remedy) in _HTTP_PROBLEMS.items():
        if name in names:
            return ModelFolderError(target, f"{repo} at {revision}: {problem}", remedy)
    if isinstance(error, OSError) or "HTTPError" in names:
        status = getattr(getattr(error, "response", None), "status_code", None)
        reason = f"HTTP {status}" if status else type(error).__name__
        problem = f"the hub at {endpoint} cannot be reached ({reason})"
        return ModelFolderError(target, problem, by_hand(repo, target))
    return None
