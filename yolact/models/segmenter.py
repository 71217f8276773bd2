"""The base class of all models: images in; losses in training, detections in evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Generic, Literal, TypeAlias, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from layers.blocks import batch_norms
from layers.structures import Target, upload, upload_picture
from yolact.config import Config, DetectConfig
from yolact.files import write_text
from yolact.hub.card import CARD_FILE, model_card
from yolact.hub.client import PREFIX
from yolact.hub.folder import stored_state, write_folder
from yolact.hub.upload import upload_model
from yolact.results.detections import Detections
from yolact.results.thresholds import Thresholds
from yolact.runs.provenance import provenance

MaskMode = Literal["cropped", "smooth", "whole", "none"]
"""How masks are cropped.

"cropped": by their boxes on the prototype grid, with a margin of one cell (as trained); "smooth":
by their boxes in the image, to the pixel, after upsampling, for outlines without the grid's steps;
"whole": not at all; "none": no masks, only boxes. Mask R-CNN makes its masks inside their boxes, so
it distinguishes only "none" from the others.
"""

Inputs = TypeVar("Inputs")
Outputs = TypeVar("Outputs")
Model = TypeVar("Model", bound="Segmenter[Any, Any]")


class Segmenter(nn.Module, ABC, Generic[Inputs, Outputs]):
    """A model: preprocess, network and postprocess, or losses.

    Args:
        network: maps `Inputs` to `Outputs`; the part that an engine runs.
        image_size: S, in pixels.
        pixel_mean: RGB, in 0..255.
        pixel_std: RGB.
        class_names: one for each foreground class.
        detection: suppression settings.
        score_threshold: default minimum score of shown detections.

    Attributes:
        config: the configuration that `build_model` used, which is saved with the model.
        fixed_shapes: whether the input's shape determines the outputs' shapes, so that the network
            can be compiled, converted and exported.
        first_stride: stride in pixels of the finest pyramid level that has anchors.
        loss_letters: the name of each loss -> its letter in logs; "T" is taken.
        mask_mode: how masks are cropped.
        input_size: side of the training images in pixels, which may vary around S.
    """

    config: Config
    fixed_shapes: ClassVar[bool]
    first_stride: ClassVar[int]
    loss_letters: ClassVar[Mapping[str, str]]
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        network: nn.Module,
        image_size: int,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        class_names: tuple[str, ...],
        detection: DetectConfig,
        score_threshold: float,
    ) -> None:
        super().__init__()
        self.network = network
        self.image_size, self.class_names, self.detection = image_size, class_names, detection
        self.score_threshold, self.input_size = score_threshold, image_size
        self.mask_mode: MaskMode = "cropped"
        self.batch_norm_frozen = self.backbone_frozen = False
        self._frozen_norms: list[str] = []
        for name, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    @abstractmethod
    def preprocess(self, images: Sequence[Tensor]) -> Inputs:
        """Turn (3, H, W) uint8 RGB images into the network's inputs."""

    @abstractmethod
    def postprocess(
        self, outputs: Outputs, sizes: Sequence[tuple[int, int]], thresholds: Thresholds
    ) -> list[Detections]:
        """Turn the network's outputs into the detections of each image.

        Args:
            outputs: network outputs for B images.
            sizes: height and width of each image in pixels.
            thresholds: which detections count.
        """

    @abstractmethod
    def losses(self, images: Sequence[Tensor], targets: Sequence[Target]) -> dict[str, Tensor]:
        """Return the weighted losses by name; arguments as for `forward`."""

    @abstractmethod
    def from_published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename the tensors of a published file to this model's; unknown names stay."""

    def forward(
        self, images: Sequence[Tensor], targets: Sequence[Target] | None = None
    ) -> dict[str, Tensor] | list[Detections]:
        """Train on images and targets, or detect in images.

        Args:
            images: B tensors (3, H, W) uint8 RGB of any size.
            targets: the ground truth at S x S; needed in training mode only.

        Returns:
            The weighted losses by name in training mode, else the detections of each image.

        Raises:
            ValueError: training mode without targets.
        """
        if not self.training:
            with torch.no_grad():
                outputs = self.network(self.preprocess(images))
                return self.postprocess(outputs, sizes_of(images), Thresholds())
        if targets is None:
            raise ValueError("a model in training mode needs targets; call model.eval() first")
        return self.losses(images, targets)

    def dry_run(self, image: Tensor) -> None:
        """Run the network on one image, for counting its operations."""
        self.network(self.preprocess([image]))

    def resized(self, image: Tensor, image_hw: tuple[int, int]) -> Tensor:
        """Resize (..., 3, H, W) uint8 RGB images bilinearly and normalise them: (B, 3, h, w)."""
        x = upload_picture(image, self.device).view(-1, *image.shape[-3:]).float()
        if x.shape[-2:] != image_hw:
            x = F.interpolate(x, image_hw, mode="bilinear", align_corners=False)
        return (x - self.pixel_mean) / self.pixel_std

    def squeezed(self, images: Sequence[Tensor]) -> Tensor:
        """Resize images to squares, ignoring their aspect ratio, and normalise: (B, 3, S, S)."""
        side = self.input_size if self.training else self.image_size
        if all(image.shape[-2:] == (side, side) for image in images):  # as in training
            images = [torch.stack([upload(image, self.device) for image in images])]
        return torch.cat([self.resized(image, (side, side)) for image in images])

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self.pixel_mean.device

    def freeze_batch_norm(self: Model, frozen: bool = True) -> Model:
        """Freeze or unfreeze batch norm statistics and parameters in training (for small batches).

        Unfreezing restores gradients only for parameters that freezing took them from.
        """
        parameters = {
            name: parameter
            for prefix, norm in batch_norms(self)
            for name, parameter in norm.named_parameters(prefix, recurse=False)
        }
        if frozen:
            self._frozen_norms += [n for n, p in parameters.items() if p.requires_grad]
        for name in self._frozen_norms:
            parameters[name].requires_grad_(not frozen)
        if not frozen:
            self._frozen_norms = []
        self.batch_norm_frozen = frozen
        return self.train(self.training)

    def freeze_backbone(self: Model) -> Model:
        """Freeze the backbone: no gradients, and no updates of its batch norm statistics."""
        self.network.get_submodule("backbone").requires_grad_(False)
        self.backbone_frozen = True
        return self.train(self.training)

    def train(self: Model, mode: bool = True) -> Model:
        """Switch between training and evaluation mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        if self.backbone_frozen:
            self.network.get_submodule("backbone").eval()
        if self.batch_norm_frozen:
            for _, norm in batch_norms(self):
                norm.eval()
        return self

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        half: bool = False,
        license: str | None = None,
        figures: Mapping[str, object] | None = None,
        name: str | None = None,
    ) -> Path:
        """Write a folder that `load_model` opens: model.safetensors, config.json and README.md.

        Args:
            folder: created if absent; an existing README.md in it is kept.
            half: store weights as float16, for distribution.
            license: license of the model for the card, in the hub's spelling, such as "mit".
            figures: results for the card: what was measured -> the value.
            name: name for loading the model, shown on the card; by default the folder.

        Raises:
            OSError: a file cannot be written.
            ValueError: the folder has a config.json that is not one of ours.
        """
        folder = Path(folder)
        made_by = provenance(self.config.train.seed)
        write_folder(folder, stored_state(self.state_dict(), half), self.config, made_by)
        if not (folder / CARD_FILE).exists():
            text = model_card(self.config, name or str(folder), license, figures)
            write_text(folder / CARD_FILE, text)
        return folder

    def push_to_hub(
        self,
        repository: str,
        *,
        private: bool | None = None,
        commit_message: str = "Upload a model of yolact",
        half: bool = False,
        license: str | None = None,
        figures: Mapping[str, object] | None = None,
    ) -> str:
        """Upload the model to the Hugging Face hub, for `load_model("hf:owner/name")`.

        Args:
            repository: "owner/name", created if absent; an existing card in it is kept.
            private: whether a new repository is private; None for its owner's default.
            commit_message: message of the upload's commit.
            half: see `save_pretrained`.
            license: see `save_pretrained`.
            figures: see `save_pretrained`.

        Returns:
            The address of the repository.

        Raises:
            OSError: the upload failed.
        """
        with TemporaryDirectory() as folder:
            self.save_pretrained(
                folder, half=half, license=license, figures=figures, name=f"{PREFIX}{repository}"
            )
            return upload_model(Path(folder), repository, private, commit_message)


AnySegmenter: TypeAlias = Segmenter[Any, Any]
"""A model of any kind, for code that passes its inputs and outputs on unread."""


def sizes_of(images: Sequence[Tensor]) -> list[tuple[int, int]]:
    """Return height and width of (..., H, W) images."""
    return [(image.shape[-2], image.shape[-1]) for image in images]
