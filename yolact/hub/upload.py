"""Models to the hub."""

from __future__ import annotations

from pathlib import Path

from .card import CARD_FILE
from .client import hub, one_line


def upload_model(folder: Path, repository: str, private: bool | None, message: str) -> str:
    """Upload a folder to a repository, which is made where there is none.

    A card that is there already stays, as people may have written it.

    Args:
        folder: as `Segmenter.save_pretrained` makes it.
        repository: "owner/name".
        private: of a new repository; None for what its owner has set.
        message: of the commit.

    Returns:
        The address of the repository.

    Raises:
        DownloadError: it cannot be uploaded.
    """
    with one_line(f"upload to {repository}", "save_pretrained(folder) keeps it on this machine"):
        api = hub().HfApi()
        address = api.create_repo(repository, private=private, exist_ok=True)
        old = [CARD_FILE] if api.file_exists(repository, CARD_FILE) else None
        api.upload_folder(
            repo_id=repository, folder_path=folder, commit_message=message, ignore_patterns=old
        )
        return str(address)
