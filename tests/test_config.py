import json
import re
import warnings
from dataclasses import fields, is_dataclass
from math import inf, nan
from typing import Any

import pytest

from data.classes import COCO_CLASSES
from yolact import Config, get_config, list_configs
from yolact.timm_networks import pixel_statistics

BASE = get_config("yolact_base")


def value_at(config: Config, path: str) -> Any:
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    return value


def test_no_overrides() -> None:
    assert BASE.override() == BASE


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("train.batch_size=4", 4),
        ("train.learning_rate=5e-4", 5e-4),
        ("train.learning_rate=1", 1.0),  # an int for a float
        ("train.pretrained_backbone=False", False),
        ("augment.flip=true", True),
        ("model.backbone=resnet50", "resnet50"),
        ("detect.nms='greedy'", "greedy"),
        ("dataset=shapes", "shapes"),
        ("dataset=my data/train.json", "my data/train.json"),
        ("dataset=2017", "2017"),  # a folder may be called so
        ("dataset=a=b", "a=b"),
        (" train.batch_size = 4 ", 4),
        ("train.learning_rate_steps=()", ()),
        ("train.learning_rate_steps=", ()),
        ("train.learning_rate_steps=(100, 200)", (100, 200)),
        ("train.learning_rate_steps=100,200", (100, 200)),
        ("train.learning_rate_steps=[100]", (100,)),
        ("train.learning_rate_steps=100", (100,)),
        ("model.anchor_ratios=1,2", (1.0, 2.0)),
        ("model.anchor_scales=((1,),(2,),[3],(4,),(5.5,))",
         ((1.0,), (2.0,), (3.0,), (4.0,), (5.5,))),
        ("model.class_names=cat", ("cat",)),
        ("model.class_names=cat, dog", ("cat", "dog")),
        ("model.class_names=('cat', 'dog')", ("cat", "dog")),
        ("model.class_names=traffic light,3,None", ("traffic light", "3", "None")),
        ("model.class_names=0,1", ("0", "1")),
    ],
)  # fmt: skip
def test_override(assignment: str, expected: Any) -> None:
    changed = value_at(BASE.override(assignment), assignment.partition("=")[0].strip())
    assert changed == expected
    assert type(changed) is type(expected)
    items = changed if isinstance(changed, tuple) else ()
    wanted = expected if isinstance(expected, tuple) else ()
    assert [type(item) for item in items] == [type(item) for item in wanted]


def test_override_changes_nothing_else() -> None:
    changed = BASE.override("train.batch_size=4", "detect.top_k=7")
    assert (changed.train.batch_size, changed.detect.top_k) == (4, 7)
    assert BASE.train.batch_size == 8
    assert changed.override("train.batch_size=8", "detect.top_k=200") == BASE


@pytest.mark.parametrize(
    ("assignment", "hint"),
    [
        ("train.learning_rat=1", "train.learning_rate"),
        ("train.lerning_rate=1", "train.learning_rate"),
        ("trian.batch_size=1", "train"),
        ("model.imagesize=1", "model.image_size"),
        ("datset=x", "dataset"),
        ("train.xxxxxxxxxxxxxxxxxxxxxxxx=1", "train.momentum"),  # nothing is near: all are listed
        ("train=1", "train"),
        ("train.batch_size.x=1", "train.batch_size"),
        ("=1", "dataset"),
        ("model.num_anchors=1", "model."),  # computed, no setting
    ],
)
def test_unknown_settings_are_named(assignment: str, hint: str) -> None:
    with pytest.raises(KeyError) as caught:
        BASE.override(assignment)
    message = str(caught.value.args[0])
    assert assignment.partition("=")[0] in message
    assert hint in message


def test_did_you_mean() -> None:
    with pytest.raises(KeyError, match="did you mean 'train.learning_rate'"):
        BASE.override("train.lerning_rate=1")


@pytest.mark.parametrize(
    "assignment",
    [
        "",
        "train.batch_size",
        "train.batch_size=",
        "train.batch_size=many",
        "train.batch_size=1.5",
        "train.batch_size=True",
        "train.batch_size=(1, 2)",
        "train.batch_size={[]: 1}",
        "train.learning_rate=fast",
        "train.learning_rate=nan",
        "train.pretrained_backbone=1",
        "train.pretrained_backbone=maybe",
        "train.learning_rate_steps=1.5,2",
        "train.learning_rate_steps=soon",
        "model.anchor_scales=1,2",
        "model.class_names=('a', 3)",
        "model.backbone=vgg16",
        "model.backbone=3",
        "detect.nms=soft",
    ],
)
def test_values_of_the_wrong_type(assignment: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        BASE.override(assignment)


@pytest.mark.parametrize(
    "assignment",
    [
        "model.image_size=0",
        "model.image_size=31",
        "model.num_classes=0",
        "model.num_prototypes=0",
        "model.anchor_scales=()",
        "model.anchor_scales=((1,),(2,),(3,))",  # P3..P7 are five
        "model.anchor_scales=((1,2),(3,),(4,),(5,),(6,))",  # one head serves all levels
        "model.anchor_ratios=()",
        "model.pixel_mean=1",
        "model.pixel_std=1,2",
        "train.batch_size=0",
        "train.learning_rate_steps=3000,1000",
    ],
)
def test_impossible_values(assignment: str) -> None:
    """What would fail far from its cause is refused at once."""
    with pytest.raises(ValueError, match=assignment.partition("=")[0]):
        BASE.override(assignment)


@pytest.mark.parametrize(
    ("assignments", "count", "names"),
    [
        (["model.num_classes=80"], 80, COCO_CLASSES.names),
        (["model.num_classes=2"], 2, ("class 0", "class 1")),
        (["model.class_names=a,b,c"], 3, ("a", "b", "c")),
        (["model.num_classes=2", "model.class_names=a,b"], 2, ("a", "b")),
        (["model.class_names=a,b", "model.num_classes=2"], 2, ("a", "b")),
        (["model.class_names=a,b", "model.num_classes=1"], 1, ("class 0",)),
        (["model.class_names=a,b", "model.class_names="], 2, ("class 0", "class 1")),
    ],
)
def test_names_and_number_of_classes(
    assignments: list[str], count: int, names: tuple[str, ...]
) -> None:
    config = BASE.override(*assignments)
    assert config.num_classes == config.model.num_classes == count
    assert config.model.names == names


@pytest.mark.parametrize("names", [("a",), ("a", "b", "c")])
def test_with_classes(names: tuple[str, ...]) -> None:
    config = BASE.with_classes(names)
    assert (config.num_classes, config.model.names) == (len(names), names)
    assert BASE.num_classes == 80


@pytest.mark.parametrize("name", list_configs())
def test_round_trip_through_json(name: str) -> None:
    config = get_config(name)
    text = json.dumps(config.to_dict())
    assert Config.from_dict(json.loads(text)) == config


def test_round_trip_of_a_changed_config() -> None:
    config = BASE.override("model.class_names=a,b", "train.learning_rate_steps=", "detect.top_k=3")
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_from_dict_fills_in_defaults() -> None:
    assert Config.from_dict({"name": "x", "train": {"batch_size": 2}}) == Config("x").override(
        "train.batch_size=2"
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "name"),
        ([], "list"),
        ({"name": 3}, "config.name=3"),
        ({"name": "x", "colour": 1}, "colour"),
        ({"name": "x", "train": {"speed": 1}}, "config.train.*speed"),
        ({"name": "x", "train": 3}, "config.train"),
        ({"name": "x", "train": {"batch_size": "8"}}, "config.train.batch_size='8'"),
        ({"name": "x", "model": {"class_names": "abc"}}, "config.model.class_names"),
        ({"name": "x", "model": {"class_names": ["a"], "num_classes": 2}}, "class_names"),
        ({"name": "x", "detect": {"nms": "soft"}}, "fast, cross_class, greedy"),
        ({"name": "x", 3: 4}, "3"),
        ({"name": "x", "train": {"gamma": 10**400}}, "config.train.gamma: .* at most 64 bits"),
        ({"name": "x", "train": {"seed": 10**5000}}, "config.train.seed: .* at most 64 bits"),
        ({"name": "x", "model": {"anchor_scales": [[-(2**64)]]}}, "anchor_scales: .* 64 bits"),
    ],
)
def test_from_dict_refuses(values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config.from_dict(values)


LONG = "a\n" * 9999


@pytest.mark.parametrize(
    "values",
    [
        {"name": LONG},
        {"name": "x", LONG: 1},
        {"name": "x", "detect": {"nms": LONG}},
        {"name": "x", "model": {"backbone": LONG}},
        {"name": "x", "model": {"backbone": f"timm/{LONG}"}},
        {"name": "x", "model": {"anchor_ratios": [0.0] * 9999}},
        {"name": "x", "model": {"pixel_mean": [0.0] * 9999}},
        {"name": "x", "augment": {"scale_jitter": [1.0] * 9999}},
    ],
)
def test_errors_are_one_short_line_whatever_is_stored(values: Any) -> None:
    with pytest.raises(ValueError, match=r"^.{20,500}$"):
        config = Config.from_dict(values)
        pixel_statistics(config.model.backbone)  # asked for when it is assigned


@pytest.mark.parametrize("assignment", [LONG, f"{LONG}=1", f"train.gamma={LONG}"])
def test_errors_are_one_short_line_whatever_is_assigned(assignment: str) -> None:
    with pytest.raises((ValueError, KeyError), match=r"^.{20,700}$"):
        BASE.override(assignment)


@pytest.mark.parametrize("name", ["2wheeler,4wheeler", "1or2", "0b3"])
def test_words_that_begin_as_numbers(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # as Python's of a number that ends in letters
        config = BASE.override(f"model.class_names={name}")
    assert config.model.class_names == tuple(name.split(","))


@pytest.mark.parametrize("name", list_configs())
def test_get_config_takes_the_originals_suffix(name: str) -> None:
    assert get_config(name) is get_config(f"{name}_config")
    assert get_config(name).name == name


@pytest.mark.parametrize(
    "name", ["", "yolact", "yolact_bsae", "_config", "yolact_base_config_config"]
)
def test_unknown_preset_lists_the_known_ones(name: str) -> None:
    with pytest.raises(KeyError) as caught:
        get_config(name)
    assert all(known in str(caught.value) for known in list_configs())


def test_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(KeyError, match="did you mean 'yolact_base'"):
        get_config("yolact_bsae")


def limits_of(part: Any, prefix: str = "") -> dict[str, tuple[float, float]]:
    """Those of every setting that is a number, or holds some."""
    found = {}
    for entry in fields(part):
        value = getattr(part, entry.name)
        if is_dataclass(value):
            found |= limits_of(value, f"{prefix}{entry.name}.")
        elif re.search("int|float|Scales", str(entry.type)):
            found[prefix + entry.name] = entry.metadata["limits"]
    return found


LIMITS = limits_of(BASE)


def nested(values: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    name, _, rest = path.partition(".")
    return {**values, name: nested(values[name], rest, value) if rest else value}


@pytest.mark.parametrize("path", LIMITS)
@pytest.mark.parametrize("wrong", ["least", "greatest", "inf", "nan"])
def test_numbers_out_of_range_are_refused_by_name(path: str, wrong: str) -> None:
    """As they may stand in a file of a stranger."""
    low, high = LIMITS[path]
    kind = type(value_at(BASE, path))
    number = {"least": low - 1, "greatest": high * 2, "inf": inf, "nan": nan}[wrong]
    value: Any = number
    if kind is int and wrong in ("least", "greatest"):
        value = int(number)
    elif kind is tuple:
        value = ((number,) * 3,) * 5 if path == "model.anchor_scales" else (number,) * 3
        if path == "train.learning_rate_steps" and wrong in ("least", "greatest"):
            value = (int(number),)
    with pytest.raises(ValueError, match=path.replace(".", r"\.")):
        Config.from_dict(nested(BASE.to_dict(), path, value))


@pytest.mark.parametrize(
    "name", ["/tmp/x", "../x", "a/b", "a\\b", "", ".", "..", "x\0", "x\n", "a" * 200]
)
def test_names_that_are_no_part_of_a_path_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="expected letters, digits"):
        Config.from_dict({**BASE.to_dict(), "name": name})
