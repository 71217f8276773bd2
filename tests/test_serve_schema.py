"""The endpoint of `yolact serve` keeps its own schema, whatever is sent."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.tiny import SETTINGS

from yolact import Predictor, build_model, get_config

pytest.importorskip("fastapi", reason="needs the extra 'serve'")
schemathesis = pytest.importorskip("schemathesis", reason="needs the extra 'dev'")

from hypothesis import HealthCheck, Phase, given, settings  # noqa: E402
from schemathesis.specs.openapi.checks import positive_data_acceptance  # noqa: E402

from yolact.serve.app import make_app  # noqa: E402
from yolact.serve.limits import Limits  # noqa: E402


@pytest.fixture(scope="module")
def operations() -> dict[str, Any]:
    """What the schema lists, by path."""
    torch.manual_seed(0)
    config = get_config("yolact_resnet18").override(*SETTINGS)
    app = make_app(Predictor(build_model(config)), "tiny", Limits(rate=1e6, burst=10**6))
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    found = [each.ok() for each in schema.get_all_operations()]
    return {each.path: each for each in found}


@pytest.mark.parametrize("count", [4, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("path", "mode"),
    [
        ("/api/model", "positive"),  # which takes nothing that could be wrong
        ("/api/segment", "positive"),
        ("/api/segment", "negative"),
        ("/api/prototypes", "positive"),
        ("/api/prototypes", "negative"),
    ],
)
def test_the_schema_is_kept(operations: dict[str, Any], path: str, mode: str, count: int) -> None:
    """Whatever the schema allows or forbids, the answer is one that it foresees."""
    seen = []

    @settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operations[path].as_strategy(generation_mode=schemathesis.GenerationMode(mode)))
    def check(case: Any) -> None:
        # No schema can tell an image from other bytes, so valid requests may be refused.
        answer = case.call_and_validate(excluded_checks=[positive_data_acceptance])
        seen.append(answer.status_code)

    check()
    assert seen and max(seen) < 500
