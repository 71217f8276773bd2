"""Problems of the images of a COCO-style dataset."""

from __future__ import annotations

from pathlib import Path

from data.annotations.images import Images, read_images
from data.annotations.locate import image_path
from data.formats.convert import unreadable
from data.images import read_image
from data.problems import Problem, Unusable

_ENDS = (b"\xff\xd9", b"\x00IEND\xaeB`\x82")  # of JPEG and PNG files that are not cut short
_END_LENGTH = max(map(len, _ENDS))


def check_images(
    entries: list[object], folder: Path, annotations: Path
) -> tuple[Images, list[Problem]]:
    """Look at the head and the end of every image file; decode those that look cut short.

    Args:
        entries: `images` of a COCO file, whatever they are.
        folder: where the image files are.
        annotations: the file that names them.

    Returns:
        The images that training would use, and the problems, at most one for each entry.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    problems: list[Problem] = []
    images = read_images(entries, folder, annotations, problems.append)
    problems += images.problems
    told = {problem.where for problem in images.problems}
    paths: set[str] = set()
    for row in range(len(images.table)):
        name, path = images.table.file_names.text(row), images.table.paths.text(row)
        try:
            if path in paths:
                raise Unusable("an image that is listed twice", "join the two entries")
            paths.add(path)
            _check_file(image_path(folder, path))
        except Unusable as error:
            if name not in told:
                problems.append(Problem(error.what, name, error.mend))
    order = {name: row for row, name in enumerate(_names(entries))}
    return images, sorted(problems, key=lambda problem: order.get(problem.where, -1))


def _names(entries: list[object]) -> list[str]:
    return [str(entry.get("file_name")) for entry in entries if isinstance(entry, dict)]


def _check_file(path: Path) -> None:
    if _ends_well(path):
        return
    try:
        read_image(path)
    except (ValueError, OSError):
        raise unreadable() from None


def _ends_well(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - _END_LENGTH))
        return file.read().endswith(_ENDS)
