"""The model card: the README.md of a model's repository."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from data.problems import printable
from yolact.config import Config, ModelConfig

from .client import PREFIX

CARD_FILE = "README.md"

# Characters with a meaning in Markdown and HTML, or that turn text into a link.
_MARKS = re.compile(r"[!-&*+:-@\[-`{-~]|(?<=www)\.", re.IGNORECASE)


def model_card(
    config: Config,
    name: str,
    license: str | None = None,
    figures: Mapping[str, object] | None = None,
) -> str:
    """Return a card in Markdown.

    Args:
        config: configuration of the model.
        name: name for `Predictor.from_checkpoint`.
        license: in the hub's spelling, such as "mit"; left out if not given.
        figures: what was measured -> the value; left out if not given.
    """
    import yaml

    facts: dict[str, object] = {
        "library_name": "yolact",
        "pipeline_tag": "image-segmentation",
        "tags": ["instance-segmentation", "yolact"],
        **({"license": license} if license else {}),
    }
    model = config.model
    classes = ", ".join(map(_plain, model.names))
    rows = [f"| {_plain(what)} | {_plain(str(value))} |" for what, value in (figures or {}).items()]
    table = "\n".join(["| measured | |", "| --- | --- |", *rows, "", ""]) if rows else ""
    return f"""---
{yaml.safe_dump(facts, sort_keys=False)}---

# {_plain(name.removeprefix(PREFIX))}

Instance segmentation by `{config.name}`: {model.architecture} on {model.backbone}, for images of
{_input(model)}.

```python
from yolact import Predictor

predictor = Predictor.from_checkpoint({json.dumps(name)})
predictor("photo.jpg").save("out.png")
```

{table}Classes ({len(model.names)}): {classes}.

Objects are shown from a score of {config.score_threshold:g} on.
"""


def _plain(text: str) -> str:
    """Escape an untrusted text for Markdown, in one line."""
    return _MARKS.sub(r"\\\g<0>", printable(" ".join(text.split())))


def _input(model: ModelConfig) -> str:
    side = model.image_size
    return f"{side} pixels on the shorter side" if model.keep_aspect else f"{side} x {side} pixels"
