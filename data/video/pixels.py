"""Decoded frames as RGB, and RGB as the frames that encoders take."""

from __future__ import annotations

import struct
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
import torch
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from data.images import Image, Picture, as_uint8

HD_LINES = 720
"""Height from which on colours are BT.709's unless a file says otherwise, as televisions do."""

# What cards decode to, and the same with its planes apart, as the CPU decodes.
_PLANAR = {"nv12": "yuv420p", "p010le": "yuv420p10le"}
_CARD = "cuda"  # the format of a frame that is on one
# libav's AVCOL_SPC_UNSPECIFIED, _SMPTE170M and _BT2020_NCL; PyAV 17 has no name for these.
_UNSPECIFIED, _NTSC, _BT2020 = 2, 6, 9
# Weights of red and blue.
_LUMA: dict[int, tuple[float, float]] = {
    Colorspace.ITU601: (0.299, 0.114),
    Colorspace.ITU709: (0.2126, 0.0722),
    _BT2020: (0.2627, 0.0593),
}


class ToRgb:
    """Turns frames into upright RGB with square pixels.

    Args:
        aspect: width of a pixel / its height; None where nobody knows.
    """

    def __init__(self, aspect: Fraction | None):
        # A file may claim any ratio; those of real ones are close to 1.
        self._aspect = aspect if aspect and 0.2 <= aspect <= 5 else Fraction(1)
        self._reformatter = VideoReformatter()

    def width(self, frame_width: int) -> int:
        """Return the width of a frame with square pixels."""
        return max(1, round(frame_width * self._aspect))

    def picture(self, frame: av.VideoFrame) -> Picture:
        """Return (H, W, 3) uint8: a tensor where a frame is on a card and lies ready there."""
        if frame.format.name == _CARD and self._is_ready(frame):
            luma, chroma = (from_dlpack(plane.__dlpack__()) for plane in frame.planes)
            weights = _LUMA[_colours_in(frame)]
            # Where the decoder's copies are queued as well: neither overtakes the other.
            with torch.cuda.stream(torch.cuda.default_stream(luma.device)):
                return rgb_of(luma, chroma, weights, frame.color_range == ColorRange.JPEG)
        return self(frame)

    def _is_ready(self, frame: av.VideoFrame) -> bool:
        """Tell whether a frame is upright with square pixels, of an arrangement known here."""
        return (
            _pixels_of(frame) in _PLANAR
            and _colours_in(frame) in _LUMA
            and self._aspect == 1
            and frame.height % 2 == frame.width % 2 == 0
            and frame.side_data.get("DISPLAYMATRIX") is None
        )

    def __call__(self, frame: av.VideoFrame) -> Image:
        """Return (H, W, 3) uint8."""
        if planar := _PLANAR.get(_pixels_of(frame)):  # of which libswscale rounds otherwise
            frame = self._reformatter.reformat(frame, format=planar)
        is_untagged = frame.colorspace == _UNSPECIFIED and not frame.format.is_rgb
        rgb = self._reformatter.reformat(
            frame,
            self.width(frame.width),
            frame.height,
            "rgb24",
            src_colorspace=colours_of(frame.height) if is_untagged else None,
            src_color_range=frame.color_range,
        )
        image = as_uint8(rgb.to_ndarray())
        matrix: Any = frame.side_data.get("DISPLAYMATRIX")
        return image if matrix is None else _turned(image, bytes(matrix))


def colours_of(height: int) -> Colorspace:
    """Return whose matrix between RGB and YUV fits a picture of so many lines."""
    return Colorspace.ITU709 if height >= HD_LINES else Colorspace.ITU601


def _colours_in(frame: av.VideoFrame) -> int:
    """Return whose matrix a frame's colours are by, as a `Colorspace`."""
    if frame.colorspace == _UNSPECIFIED:
        return colours_of(frame.height)
    return Colorspace.ITU601 if frame.colorspace == _NTSC else frame.colorspace


def _pixels_of(frame: av.VideoFrame) -> str:
    """Return the name of the format of a frame's pixels, also on a card."""
    format = frame.sw_format if frame.format.name == _CARD else None
    return (format or frame.format).name


def rgb_of(luma: Tensor, chroma: Tensor, weights: tuple[float, float], is_full: bool) -> Tensor:
    """Turn the planes of NV12 or P010 into RGB where they are, as libswscale does within 2 of 255.

    Args:
        luma: (H, W) uint8; or uint16, of which the upper bits count.
        chroma: (H / 2, W / 2, 2) likewise, U and V.
        weights: of red and blue in the luma.
        is_full: 0 is black and 255 white, rather than 16 and 235.

    Returns:
        (H, W, 3) uint8.
    """
    height, width = luma.shape
    red, blue = weights
    green = 1 - red - blue
    is_deep = luma.dtype != torch.uint8
    unit = 256 if is_deep else 1
    black, extent, chroma_extent = (0, 255, 255) if is_full else (16, 219, 224)
    grey = (luma.float() / unit - black) * (255 / extent)
    tint = (chroma.float() / unit - 128) * (255 / chroma_extent)
    u, v = (_between(tint) if is_deep else tint[:, None]).unbind(-1)
    u, v = 2 * (1 - blue) * u, 2 * (1 - red) * v
    parts = [grey, v, -red / green * v, -blue / green * u, u]
    if not is_deep:
        parts = [part.floor() for part in parts]
    elif not is_full:
        parts[0] = grey - 1.75  # so much darker libswscale is there
    grey, to_red, to_green, more_green, to_blue = parts
    tints = torch.stack((to_red, to_green + more_green, to_blue), dim=-1)
    # Two pixels of a row share a tint; of 8 bits, those below them, too.
    squares = grey.reshape(height // 2, 2, width // 2, 2, 1) + tints[:, :, :, None]
    return squares.reshape(height, width, 3).round().clamp(0, 255).byte()


def _between(tint: Tensor) -> Tensor:
    """Return (h, 2, w, 2) tints of the rows beside (h, w, 2), which lie to the left of pixels."""
    tint = (3 * tint + torch.cat((tint[:, 1:], tint[:, -1:]), dim=1)) / 4
    above, below = torch.cat((tint[:1], tint[:-1])), torch.cat((tint[1:], tint[-1:]))
    return torch.stack(((3 * tint + above) / 4, (3 * tint + below) / 4), dim=1)


def _turned(image: Image, display_matrix: bytes) -> Image:
    """Show an image as a display matrix says, to the nearest quarter of a turn.

    Args:
        image: (H, W, 3).
        display_matrix: libav's nine int32 a, b, u, c, d, v, x, y, w: a pixel (x, y) is shown at
            (a x + c y, b x + d y).
    """
    a, b, _, c, d, *_ = struct.unpack("=9i", display_matrix[:36])
    if abs(a) < abs(c):
        image, a, d = image.transpose(1, 0, 2), c, b
    flips = tuple(axis for axis, side in ((0, d), (1, a)) if side < 0)
    return np.ascontiguousarray(np.flip(image, flips))


class ToYuv:
    """Turns RGB into 4:2:0 frames, with the mean colour of four pixels.

    libswscale takes one and a half times as long.

    Args:
        image_hw: height and width, both even.
        is_jpeg: frames for JPEG, whose colours are always BT.601 of full range.

    Attributes:
        colours: whose matrix.
        range: limited or full.
        format: libav's name of the pixels.
    """

    def __init__(self, image_hw: tuple[int, int], is_jpeg: bool = False):
        self._hw = image_hw
        self.colours = Colorspace.ITU601 if is_jpeg else colours_of(image_hw[0])
        self.range = ColorRange.JPEG if is_jpeg else ColorRange.MPEG
        self.format = "yuvj420p" if is_jpeg else "yuv420p"
        extent = (255, 255, 0) if is_jpeg else (219, 224, 16)
        self._matrix = _rgb_to_yuv(*_LUMA[self.colours], *extent)

    def __call__(self, image: Image) -> av.VideoFrame:
        """Return the frame of an (H, W, 3) uint8 image."""
        height, width = self._hw
        half = height // 2, width // 2
        planes = np.empty(height * width * 3 // 2, np.uint8)
        luma, chroma = planes[: height * width], planes[height * width :].reshape(2, *half)
        yuv = cv2.transform(image, self._matrix)
        cv2.extractChannel(yuv, 0, luma.reshape(height, width))
        small = cv2.resize(yuv, half[::-1], interpolation=cv2.INTER_AREA)
        for number in (0, 1):
            cv2.extractChannel(small, 1 + number, chroma[number])
        frame = av.VideoFrame.from_numpy_buffer(planes.reshape(-1, width), format=self.format)
        frame.colorspace, frame.color_range = self.colours, self.range
        return frame


def _rgb_to_yuv(
    red: float, blue: float, luma: float, chroma: float, black: float
) -> NDArray[np.float32]:
    """Return (3, 4): Y, U, V from R, G, B and 1.

    Args:
        red: weight in the luma.
        blue: likewise.
        luma: extent of the values.
        chroma: likewise.
        black: luma of it.
    """
    weights = np.array((red, 1 - red - blue, blue))
    u = (np.array((0, 0, 1)) - weights) / (1 - blue) / 2
    v = (np.array((1, 0, 0)) - weights) / (1 - red) / 2
    scaled = np.stack((luma * weights, chroma * u, chroma * v)) / 255
    return np.column_stack((scaled, (black, 128, 128))).astype(np.float32)
