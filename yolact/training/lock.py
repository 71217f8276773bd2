"""One training at a time under one name in one folder."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import BinaryIO

from yolact.errors import UsageError

if sys.platform != "win32":
    import fcntl


class RunLock:
    """Holds the name of a run in a folder until it is closed, or its process ends however it ends.

    Forked loader workers do not hold it. A file system without locks lets everybody in.

    Args:
        folder: of the run's files.
        name: of the run.

    Raises:
        UsageError: another process holds it.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._path = folder / f".{name}.lock"
        self._file: BinaryIO | None = None
        if sys.platform == "win32":
            return
        while True:
            file = self._path.open("ab")
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.close()
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    raise UsageError(
                        f"--name={name}: another process trains under this name in {folder}; "
                        "stop it, or give another --name"
                    ) from None
                self._path.unlink(missing_ok=True)
                return
            if os.fstat(file.fileno()).st_nlink:
                self._file = file
                return
            file.close()  # the last holder deleted it in this moment

    def close(self) -> None:
        """Let others use the name."""
        if self._file is not None:
            self._path.unlink(missing_ok=True)
            self._file.close()
            self._file = None
