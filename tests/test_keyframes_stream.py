"""Key frames of videos and cameras in loops of Python."""

from itertools import islice
from pathlib import Path

import pytest
import torch
from support.moving_square import HW, Moving, Network, number_of, overlap, picture
from support.tiny import SETTINGS

from data.video.writer import VideoWriter
from yolact import Predictor, build_model, get_config
from yolact.errors import OptionError
from yolact.results.thresholds import Thresholds
from yolact.sources.many import Many
from yolact.sources.one import SourceImage
from yolact.video.streaming import segment_frames

pytestmark = pytest.mark.usefixtures("no_thread_stays")


def many_of(source: Moving) -> Many:
    return Many(
        (SourceImage(frame, f"clip#{i}") for i, frame in enumerate(source)), True, source.fps
    )


@pytest.mark.parametrize("frames", [0, 1, 2, 11])
@pytest.mark.parametrize(("batch", "workers"), [(1, 1), (3, 2)])
def test_frames_are_streamed(frames: int, batch: int, workers: int) -> None:
    network = Network()
    many = many_of(Moving(frames))
    found = list(segment_frames(many, network, batch, workers, 4, Thresholds().select))
    assert [each.source for each in found] == [f"clip#{i}" for i in range(frames)]
    assert [number_of(each.image) for each in found] == list(range(frames))
    assert all(overlap(each, i) > 0.85 for i, each in enumerate(found))
    assert sorted(network.seen) == list(range(0, frames, 4))


@pytest.mark.parametrize("most", [0, 1, 7])
def test_a_stream_can_be_left(most: int) -> None:
    many = many_of(Moving(10**6))
    found = segment_frames(many, Network(), 2, 2, "auto", Thresholds().select)
    assert len(list(islice(found, most))) == most
    found.close()
    assert most == 0 or list(many.images) == []


def test_a_camera_is_streamed() -> None:
    many = Many(many_of(Moving(30)).images, False, 30.0)
    network = Network(seconds=0.05)
    found = segment_frames(many, network, 1, 1, "auto", Thresholds().select)
    for number, each in enumerate(islice(found, 20)):
        assert each.source == f"clip#{number}"
        assert overlap(each, number) > 0.4  # a late result is carried in one leap; if left, 0.18
    found.close()
    assert list(many.images) == []


def test_only_videos_have_key_frames() -> None:
    predictor = tiny_predictor()
    for source in ([], [picture(0)], iter([])):
        with pytest.raises(OptionError, match="keyframes=4: expected off, for this is no video"):
            predictor.stream(source, keyframes=4)
    with pytest.raises(OptionError, match="keyframes=0: expected auto, off"):
        predictor.stream("absent.mp4", keyframes=0)


def test_a_predictor_streams_key_frames(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    with VideoWriter(clip, 25, HW) as writer:
        for number in range(7):
            writer.write(picture(number))
    predictor = tiny_predictor()
    every, all_of_them = (list(predictor.stream(clip, keyframes=n)) for n in (3, 1))
    assert [found.source for found in every] == [found.source for found in all_of_them]
    assert [found.carried for found in every] == [False, True, True, False, True, True, False]
    assert not any(found.carried for found in all_of_them)
    for number in (0, 3, 6):
        assert every[number].to_json() == all_of_them[number].to_json()


def test_boxes_alone_are_never_empty() -> None:
    predictor, thresholds = tiny_predictor(), Thresholds(0.3, drop_empty=True)
    assert predictor.counting(thresholds) == thresholds
    predictor.model.mask_mode = "none"
    assert predictor.counting(thresholds) == Thresholds(0.3)


def tiny_predictor() -> Predictor:
    torch.manual_seed(0)
    return Predictor(build_model(get_config("yolact_resnet18").override(*SETTINGS)))
