"""A folder → a repository on the Hub, in one commit."""

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, HTTPError

from .published_files import check_weights, files_to_publish
from .report import ConversionError


@dataclass(frozen=True)
class Push:
    """
    Args:
        commit: its hash.
        deleted: paths of files that were on the Hub and are not any more.
    """

    commit: str
    deleted: list[str]


def push_folder(
    folder: str | Path,
    repository: str,
    private: bool = False,
    revision: str | None = None,
    message: str = "Upload GPTFace checkpoint",
    keep: bool = False,
    api: HfApi | None = None,
) -> Push:
    """
    Uploads a folder in one commit, which is all there or not at all; what was uploaded before a connection dropped is
    not uploaded again. Files whose name starts with a dot stay here, and those on the Hub stay there.

    Args:
        repository: "user/name"; made where it does not exist.
        private: whether a new repository is a private one, and one that is there must be.
        revision: a branch, made where it does not exist; the main one by default.
        keep: leave files on the Hub that the folder has not; else they are deleted in the same commit.

    Raises:
        OSError: `folder` holds no checkpoint, or the Hub cannot be reached or refuses.
        ConversionError: lists what must not be published: links, weights that are not those of the configuration.
        ValueError: the repository is public where a private one was asked for. Nothing has been uploaded.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no config.json: push the folder of a checkpoint or an export of it")
    names = files_to_publish(folder)
    check_weights(folder)
    api = api or HfApi()
    try:
        api.create_repo(repository, private=private or None, exist_ok=True)
        if private and not api.repo_info(repository).private:
            raise ConversionError(
                f"{repository} is a public repository: make it private in its settings on the Hub, "
                "or leave --private out",
                [],
            )
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        there = {each.rfilename for each in api.model_info(repository, revision=revision).siblings or ()}
        deleted = [] if keep else sorted(name for name in there - set(names) if not _is_hidden(name))
        # `upload_folder` may spread the files over several commits
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            *(CommitOperationAdd(name, folder / name) for name in names),
            *(CommitOperationDelete(name) for name in deleted),
        ]
        commit = api.create_commit(repository, operations, commit_message=message, revision=revision)
    except HfHubHTTPError:
        raise
    except (HTTPError, RuntimeError) as error:  # a connection, in an upload wrapped into a RuntimeError
        raise ConnectionError(f"{repository}: the upload broke off ({error}); push again to complete it") from error
    return Push(commit.oid, deleted)


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))
