"""Detections: the objects that a model finds in one image, and all that can be made of them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from data.annotations.run_lengths import encode
from data.images import Image, read_image
from layers.instances import Instances


@dataclass(frozen=True, repr=False)
class Detections(Instances):
    """N objects found in one image, highest score first; see `Instances` for their parts.

    Attributes:
        source: path or address of the image, with the number of the frame in a video; "" if none.
        picture: the image itself where it is kept; `image` reads it again where it is not.
        coefficients: (N, K), the weight of each prototype in each mask; None but from YOLACT.
    """

    source: str = ""
    picture: Image | None = None
    coefficients: Tensor | None = None

    @property
    def image(self) -> Image:
        """The image that was detected in, (H, W, 3) uint8 RGB.

        Raises:
            ValueError: it was not kept, and there is no file to read it from.
        """
        if self.picture is not None:
            return self.picture
        if not self.source:
            raise ValueError("these detections hold no picture: pass image= to this call")
        return read_image(self.source)

    def run_lengths(self, index: int) -> str:
        """Return COCO's compressed run lengths of one full-size mask, as pycocotools does."""
        window, inside = self.crop(index)
        return encode(inside.cpu().numpy(), self.image_hw, window[:2])["counts"]
