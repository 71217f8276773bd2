"""CVAT for images 1.1: an XML file for a set of images, read and written; masks are exact."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from data.annotations.entries import stated_hw
from data.annotations.locate import ImageFinder
from data.annotations.paths import relative_name
from data.annotations.run_lengths import decode, encode
from data.files import open_file, read_bytes, xml_elements
from data.images import MAX_PIXELS
from data.problems import Unusable
from data.sample import RunLengths

from .builder import (
    DRAW_AGAIN,
    CocoBuilder,
    ConversionResult,
    Object,
    Part,
    ellipse,
    header_hw,
    joined,
    polygon,
    rectangle,
)
from .output import Output, Picture, write
from .polygon_object import PolygonObject
from .splits import images_beside, split_of

_TAGS = (b"<version>", b"<meta>", b"<image ")  # that follow CVAT's first one
_SUBSET = re.compile(rb"""<image\b[^<>]*\ssubset=["']([^"']+)""")
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NO_AREA = ("points", "polyline", "skeleton", "cuboid")
_OTHERS = ("tag", "attribute")  # of an image rather than of an object


class CvatMask(NamedTuple):
    """An object to write.

    Attributes:
        name: of its class.
        bitmap: (h, w) bool, at least one pixel.
        corner: x and y of the bitmap in the image.
    """

    name: str
    bitmap: NDArray[np.bool_]
    corner: tuple[int, int]


class _Image(NamedTuple):
    """An image with all that its entries say, for tasks may share it."""

    image_hw: tuple[int, int]
    objects: list[Object]
    listed: list[int]


def read_cvat(image_folder: Path, source: Path, part: str = "") -> ConversionResult:
    """Read the objects of CVAT's images.

    Polygons, masks, rectangles and ellipses are objects; shapes of one label and group are parts
    of one object. An image of several tasks is one image with the objects of all.

    Args:
        image_folder: to which the image names are relative.
        source: an XML file, or a folder: then all of CVAT's files in it and below.
        part: "train" or "val": images of subsets that are called so; "" for all.

    Raises:
        ValueError: a file cannot be read, or nothing can be used.
    """
    found = CocoBuilder()
    images: dict[str, _Image] = {}
    names: list[str] = []
    for file in [source] if source.is_file() else cvat_files(source):
        folder = image_folder if source.is_file() else images_beside(file.parent, file.stem, None)
        finder = ImageFinder(folder, file)
        for number, element in enumerate(xml_elements(file, ("label", "image", "track"))):
            if element.tag == "label":
                names += [name for name in [_class_name(element)] if name]
                continue
            where = f"{file}, {element.get('name') or f'{element.tag} {number}'}"
            with found.leaving_out(where):
                if element.tag == "track":
                    raise Unusable("a track of a video", "export it as CVAT for images 1.1")
                split = split_of(element.get("subset", ""))
                if part == "train" and split is None:
                    raise Unusable("an image of no split", "put it into a subset in CVAT")
                if part and split != part:
                    continue
                path = finder.find(element.get("name", ""))
                image_hw = stated_hw(element.attrib) or header_hw(path)
                name = relative_name(path, image_folder.absolute())
                image = images.setdefault(name, _Image(image_hw, [], []))
                image.objects.extend(_objects(found, element, image.image_hw, where))
                image.listed.append(sum(shape.tag not in _OTHERS for shape in element))
    for name, image in images.items():
        found.add(name, image.image_hw, image.objects, sum(image.listed))
    return found.finish(source, listed=names)


def cvat_files(folder: Path, depth: int = 4) -> list[Path]:
    """Return CVAT's files in a folder and so many folders below each other."""
    patterns = ("*/" * below + "*.xml" for below in range(depth + 1))
    files = (file for pattern in patterns for file in sorted(folder.glob(pattern)))
    return [file for file in files if is_cvat(file)]


def is_cvat(file: Path) -> bool:
    """Tell CVAT's XML from that of others, such as Pascal VOC's, by its first element."""
    try:
        with open_file(file) as stream:
            head = stream.read(1 << 12)
    except OSError:
        return False
    return b"<annotations>" in head and any(tag in head for tag in _TAGS)


def subsets(file: Path) -> set[str]:
    """Return the subsets of a project that images of a file are in, without parsing it."""
    return {name.decode("utf-8", "replace") for name in _SUBSET.findall(read_bytes(file))}


def write_cvat(output: Output, pictures: Iterable[Picture]) -> None:
    """Write `annotations.xml`, masks as masks and polygons as polygons."""
    entries = (
        _entry(number, picture.name, picture.image_hw, _shapes(output, picture))
        for number, picture in enumerate(pictures)
    )
    file = output.folder / output.split / "annotations.xml"
    write(file, cvat_file(output.categories.names, entries))


def cvat_image(name: str, image_hw: tuple[int, int], objects: Iterable[CvatMask]) -> str:
    """Return the entry of the first image of a file.

    Args:
        name: file name of the image, as CVAT knows it.
        image_hw: height and width of the image.
        objects: its masks.
    """
    return _entry(0, name, image_hw, map(_mask, objects))


def cvat_file(class_names: Iterable[str], images: Iterable[str]) -> Iterator[str]:
    """Yield the file in pieces, around the entries that `cvat_image` makes."""
    yield '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n'
    yield "  <meta><task><labels>\n"
    for name in class_names:
        yield f"    <label><name>{_text(name)[1:-1]}</name></label>\n"
    yield "  </labels></task></meta>\n"
    yield from images
    yield "</annotations>\n"


def _class_name(label: Element) -> str | None:
    """Return the name of a class, unless it is of tags, lines, points, or parts of a skeleton."""
    has_area = label.findtext("type", "any") not in (*_NO_AREA, *_OTHERS)
    is_part = label.find("parent") is not None
    return (label.findtext("name") or "").strip() if has_area and not is_part else None


def _objects(
    found: CocoBuilder, image: Element, image_hw: tuple[int, int], where: str
) -> list[Object]:
    groups: dict[tuple[str, str], dict[bool, list[Part]]] = {}
    for number, shape in enumerate(image, start=1):
        if shape.tag in _OTHERS:
            continue
        with found.leaving_out(f"{where}, {shape.tag} {number}"):
            outline, label = _outline(shape, image_hw), shape.get("label", "").strip()
            if not label:
                raise Unusable("a shape without a label", "give it the name of its class")
            group = shape.get("group_id") or "0"
            key = label, f"shape {number}" if group == "0" else f"group {group:.40}"
            groups.setdefault(key, {}).setdefault(shape.tag == "box", []).append(outline)
    # The box in a group with outlines, as datumaro writes it, is the box around these.
    return [
        Object(label, joined(parts.get(False) or parts[True], image_hw))
        for (label, _), parts in groups.items()
    ]


def _outline(shape: Element, image_hw: tuple[int, int]) -> Part:
    if shape.tag in _NO_AREA:
        raise Unusable(f"a {shape.tag}, which has no area", "draw a polygon")
    angle = math.radians(_numbers(shape.get("rotation") or "0")[0])
    if shape.tag == "polygon":
        points = [_numbers(point) for point in shape.get("points", "").split(";")]
        if any(len(point) != 2 for point in points):
            raise Unusable("an outline without points", DRAW_AGAIN)
        return polygon([x for x, _ in points], [y for _, y in points], image_hw)
    if shape.tag == "box":
        x1, y1, x2, y2 = _attributes(shape, "xtl", "ytl", "xbr", "ybr")
        centre = ((x1 + x2) / 2, (y1 + y2) / 2)
        return rectangle((x1, y1), (x2 - x1, y2 - y1), image_hw, angle, centre)
    if shape.tag == "ellipse":
        x, y, radius_x, radius_y = _attributes(shape, "cx", "cy", "rx", "ry")
        return ellipse((x, y), (radius_x, radius_y), image_hw, angle)
    if shape.tag == "mask":
        return _run_lengths(shape, image_hw)
    raise Unusable("a shape of unknown type", DRAW_AGAIN)


def _attributes(shape: Element, *names: str) -> list[float]:
    return _numbers(",".join(shape.get(name, "") for name in names))


def _numbers(text: str) -> list[float]:
    try:
        numbers = [float(number) for number in text.split(",")]
    except ValueError:
        numbers = [math.nan]
    if not math.isfinite(sum(numbers)):
        raise Unusable("a coordinate that is no number", DRAW_AGAIN)
    return numbers


def _run_lengths(mask: Element, image_hw: tuple[int, int]) -> RunLengths:
    """Read a mask: row by row, beginning with a run outside, in a window of the image."""
    x, y, width, height = map(int, _attributes(mask, "left", "top", "width", "height"))
    runs = _numbers(mask.get("rle", ""))
    is_window = min(width, height) > 0 and width * height <= MAX_PIXELS
    if not is_window or min(runs) < 0 or sum(map(int, runs)) != width * height:
        raise Unusable("run lengths of the wrong sum", DRAW_AGAIN)
    inside = np.arange(len(runs)) % 2 == 1
    bitmap = np.repeat(inside, np.array(runs, np.int64)).reshape(height, width)
    try:
        return encode(bitmap, image_hw, (x, y))
    except ValueError:
        raise Unusable("a mask outside the image", DRAW_AGAIN) from None


def _entry(number: int, name: str, image_hw: tuple[int, int], shapes: Iterable[str]) -> str:
    height, width = image_hw
    head = f'  <image id="{number}" name={_text(name)} width="{width}" height="{height}">\n'
    return head + "".join(shapes) + "  </image>\n"


def _shapes(output: Output, picture: Picture) -> Iterator[str]:
    for number, (name, outline) in enumerate(output.named(picture), start=1):
        if isinstance(outline, list):
            item = PolygonObject(name, 0, output.polygons(outline, picture.image_hw))
            yield from _polygons(item, number)
        else:
            bitmap = decode(outline, picture.image_hw).astype(np.bool_)
            rows, columns = np.flatnonzero(bitmap.any(axis=1)), np.flatnonzero(bitmap.any(axis=0))
            window = bitmap[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            yield _mask(CvatMask(name, window, (int(columns[0]), int(rows[0]))))


def _polygons(item: PolygonObject, number: int) -> Iterator[str]:
    group = f' group_id="{number}"' if len(item.polygons) > 1 else ""
    for ring in item.rings():
        points = ";".join(f"{x!r},{y!r}" for x, y in ring)
        yield (
            f'    <polygon label={_text(item.name)} source="manual" occluded="0" '
            f'points="{points}" z_order="0"{group}></polygon>\n'
        )


def _mask(found: CvatMask) -> str:
    rows, columns = found.bitmap.shape
    pixels = found.bitmap.reshape(-1)  # row by row, beginning with a run outside
    turns = np.flatnonzero(np.diff(pixels, prepend=False))
    runs = ", ".join(map(str, np.diff(turns, prepend=0, append=len(pixels))))
    x, y = found.corner
    return (
        f'    <mask label={_text(found.name)} source="auto" occluded="0" rle="{runs}" left="{x}" '
        f'top="{y}" width="{columns}" height="{rows}" z_order="0"></mask>\n'
    )


def _text(text: str) -> str:
    """Quote a text for XML, without the characters that it cannot hold."""
    return quoteattr(_NOT_IN_XML.sub("", text))
