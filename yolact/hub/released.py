"""The published weights: their addresses and download."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

from .client import hub, hub_file, one_line, torch_file


class OfficialFile(NamedTuple):
    """One file published by the authors of YOLACT or of torchvision.

    Attributes:
        file_name: name in weights/, which determines the preset.
        repository: repository on the hub, if it is there.
        address: otherwise its web address; the name ends in eight digits of its digest.
    """

    file_name: str
    repository: str = ""
    address: str = ""

    @property
    def url(self) -> str:
        """The address for a browser."""
        hub_address = f"https://huggingface.co/{self.repository}/resolve/main/{self.file_name}"
        return self.address or hub_address


OFFICIAL_WEIGHTS: dict[str, OfficialFile] = {
    "yolact_base": OfficialFile("yolact_base_54_800000.pth", "dbolya/yolact-base"),
    "yolact_im700": OfficialFile("yolact_im700_54_800000.pth", "dbolya/yolact-im700"),
    "yolact_darknet53": OfficialFile("yolact_darknet53_54_800000.pth", "dbolya/yolact-darknet53"),
    "yolact_resnet50": OfficialFile("yolact_resnet50_54_800000.pth", "dbolya/yolact-resnet50"),
    "yolact_plus_base": OfficialFile("yolact_plus_base_54_800000.pth", "dbolya/yolact-plus-base"),
    "yolact_plus_resnet50": OfficialFile(
        "yolact_plus_resnet50_54_800000.pth", "dbolya/yolact-plus-resnet50"
    ),
    "maskrcnn_resnet50_fpn": OfficialFile(
        MaskRCNN_ResNet50_FPN_Weights.COCO_V1.url.rpartition("/")[2],
        address=MaskRCNN_ResNet50_FPN_Weights.COCO_V1.url,
    ),
    "darknet53": OfficialFile("darknet53.pth", "dbolya/yolact-initial-weights"),
}
"""The trained models by preset name, and the Darknet-53 backbone to start training from."""


def fetch_weights(name: str, folder: Path = Path("weights")) -> Path:
    """Return a published file: from a folder, else from a cache, to which it is downloaded once.

    Args:
        name: a key of `OFFICIAL_WEIGHTS`.
        folder: folder for manually downloaded files, under their published names.

    Raises:
        KeyError: no such name.
        DownloadError: the file is absent and cannot be fetched.
    """
    if name not in OFFICIAL_WEIGHTS:
        raise KeyError(f"no weights are named {name!r}; there are {', '.join(OFFICIAL_WEIGHTS)}")
    official = OFFICIAL_WEIGHTS[name]
    by_hand = folder / official.file_name
    if by_hand.is_file():
        return by_hand
    advice = f"try again, or fetch it by other means and put it at {by_hand}"
    with one_line(f"download {official.url}", advice):
        if official.address:
            return torch_file(official.address)
        # These files will not change any more, so a cached file is used without asking the hub.
        cached = hub().try_to_load_from_cache(official.repository, official.file_name)
        if isinstance(cached, str):
            return Path(cached)
        return hub_file(official.repository, official.file_name)
