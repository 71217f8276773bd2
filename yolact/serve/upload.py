"""The image in a request: bytes that are bounded, and that are really an image."""

from __future__ import annotations

import asyncio
import io
from typing import Any

from PIL import Image as PilImage
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive

from data.images import Image, read_image

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
FIELD = "image"
_SCHEMA = {"type": "string", "format": "binary"}
REQUEST_BODY: dict[str, Any] = {
    "description": f"An image file ({', '.join(FORMATS)}), alone or as a field of a form.",
    "required": True,
    "content": {
        "image/*": {"schema": _SCHEMA},
        "application/octet-stream": {"schema": _SCHEMA},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [FIELD],
                "properties": {FIELD: _SCHEMA},
                "additionalProperties": False,
            }
        },
    },
}


async def receive_image(request: Request, most: int, seconds: float) -> bytes:
    """Read the image of a request, whose body is one or a form with one.

    Args:
        request: not read yet.
        most: bytes of the whole body.
        seconds: to wait for it.

    Raises:
        HTTPException: 400 no image, 408 too slow, 413 too large, 422 other fields in the form.
    """
    bounded = Request(request.scope, _bounded(request.receive, most))
    try:
        content = await asyncio.wait_for(_content(bounded), seconds)
    except asyncio.TimeoutError:
        raise HTTPException(408, f"the image did not arrive within {seconds:g} seconds") from None
    except ClientDisconnect:
        raise HTTPException(400, "the image was cut short") from None
    if not content:
        raise HTTPException(400, f"no image: send one as the body, or as the field '{FIELD}'")
    return content


def decode_image(content: bytes, pixels: int) -> Image:
    """Decode an image of one of `FORMATS`, going by its content.

    Raises:
        HTTPException: 413 too many pixels, 415 another format, 422 broken.
    """
    try:
        with PilImage.open(io.BytesIO(content), formats=FORMATS) as header:
            width, height = header.size
    except PilImage.DecompressionBombError:
        raise HTTPException(413, f"the image has more than {pixels:,} pixels") from None
    except Exception:  # decoders of hostile bytes raise nearly every type there is
        expected = ", ".join(FORMATS)
        raise HTTPException(415, f"not an image of a known format; expected {expected}") from None
    if width * height > pixels:
        raise HTTPException(413, f"the image has more than {pixels:,} pixels")
    try:
        return read_image(content)
    except ValueError as error:
        raise HTTPException(422, str(error)) from None


async def _content(request: Request) -> bytes:
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        return await request.body()
    try:
        async with request.form(max_files=1, max_fields=8) as form:
            image = form.get(FIELD)
            if not isinstance(image, UploadFile):
                return b""
            if others := [name for name in form if name != FIELD]:
                reason = "unknown in the form; parameters belong to the address, after '?'"
                raise HTTPException(422, f"{others[0]}: {reason}")
            return await image.read()
    except ValueError:  # older versions of starlette let the errors of its parser through
        raise HTTPException(400, "Invalid multipart data.") from None


def _bounded(receive: Receive, most: int) -> Receive:
    """Count what arrives, whatever its declared length."""
    received = 0

    async def counted() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > most:
            raise HTTPException(413, f"the request has more than {most:,} bytes")
        return message

    return counted
