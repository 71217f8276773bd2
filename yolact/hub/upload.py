"""Upload of models to the hub."""

from __future__ import annotations

from pathlib import Path

from .card import CARD_FILE
from .client import PREFIX, HubName, hub, one_line


def upload_model(folder: Path, repository: str, private: bool | None, message: str) -> str:
    """Upload a folder to a repository, which is created if absent.

    An existing card is kept, as it may have been written by hand.

    Args:
        folder: a folder of `Segmenter.save_pretrained`.
        repository: "owner/name".
        private: whether a new repository is private; None for its owner's default.
        message: message of the commit.

    Returns:
        The address of the repository.

    Raises:
        ValueError: an invalid name of a repository.
        DownloadError: the upload failed, or the repository is public instead of private.
    """
    if HubName.parse(f"{PREFIX}{repository}").repository != repository:
        raise ValueError(f"{repository}: expected owner/name")  # before one is made
    with one_line(f"upload to {repository}", "save_pretrained(folder) keeps it on this machine"):
        api = hub().HfApi()
        address = api.create_repo(repository, private=private, exist_ok=True)
        if private and not api.model_info(repository).private:
            raise ValueError("it is there already, and public; make it private on its page first")
        old = [CARD_FILE] if api.file_exists(repository, CARD_FILE) else None
        api.upload_folder(
            repo_id=repository, folder_path=folder, commit_message=message, ignore_patterns=old
        )
        return str(address)
