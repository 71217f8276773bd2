"""The application: the page, the endpoint, and what they answer when something is wrong."""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from yolact import __version__
from yolact.predictor import Predictor

from . import answers
from .guard import Guard
from .limits import Limits, TokenBuckets, WorkerPool, check_rate
from .upload import REQUEST_BODY, decode_image, receive_image

Result = TypeVar("Result")

PAGE = Path(__file__).parent / "page"
STYLE = Path(__file__).parents[1] / "style"
MOST_OBJECTS = 100
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


class Problem(BaseModel):
    """What is wrong with a request."""

    error: str


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    code: {"model": Problem, "description": text}
    for code, text in {
        400: "no image in the request",
        403: "sent by a page of another site",
        404: "no such address, or a model without prototypes",
        405: "another method",
        408: "the image arrived too slowly",
        413: "too many bytes or pixels",
        415: "not an image of a known format",
        421: "called by a name that is not this server's",
        422: "a broken image, or a parameter out of range, unknown or repeated",
        429: "too many requests of one client",
        500: "a fault of the server",
        503: "too many requests at a time, or the server stops",
        504: "no answer in time",
    }.items()
}


def make_app(
    predictor: Predictor,
    name: str,
    limits: Limits | None = None,
    hosts: frozenset[str] | None = None,
    front: str = "",
) -> ASGIApp:
    """Make the application of one model.

    Args:
        predictor: called by as many threads as it has workers.
        name: of the model, shown to people.
        limits: what is accepted.
        hosts: names that this server answers to; None for any.
        front: name of a server in front of it; "" without one.
    """
    limits = limits or Limits()
    app = FastAPI(
        title="YOLACT",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # to an address without the prefix of a server in front
    )
    _add_endpoint(app, predictor, name, limits)
    _add_errors(app)
    for suffix, kind in _TYPES.items():  # Windows' registry may say text/plain: no script runs
        mimetypes.add_type(kind, suffix)
    app.mount("/page", StaticFiles(directory=PAGE))
    app.mount("/style", StaticFiles(directory=STYLE))

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    return Guard(app, hosts, front)  # around all: answers to our own mistakes are guarded, too


def _add_endpoint(app: FastAPI, predictor: Predictor, name: str, limits: Limits) -> None:
    pool = WorkerPool(predictor.workers, limits.waiting, limits.seconds)
    buckets = TokenBuckets(limits.rate, limits.burst)
    info = answers.describe(predictor, name, limits)
    image_in: dict[str, Any] = {
        "dependencies": [Depends(_only_known_parameters)],
        "responses": _PROBLEMS,
        "openapi_extra": {"requestBody": REQUEST_BODY},
        "response_model_exclude_none": True,
    }

    async def about_image(request: Request, answer: Callable[[bytes], Result]) -> Result:
        check_rate(buckets, request.client.host if request.client else "")
        try:
            with pool.arriving.take():
                content = await receive_image(request, limits.upload_bytes, limits.seconds)
            with pool.slots.take():
                return await pool.work(partial(answer, content), request.receive)
        except asyncio.CancelledError:
            raise HTTPException(503, "the server stops") from None

    @app.head("/api/model", include_in_schema=False)
    @app.get("/api/model")
    def model() -> answers.ModelInfo:
        """Say what is served: the model, its classes and colours, the limits."""
        return info

    @app.post("/api/segment", **image_in)
    async def segment(
        request: Request,
        score_threshold: Annotated[float | None, Query(ge=0, le=1)] = None,
        top_k: Annotated[int, Query(ge=1, le=MOST_OBJECTS)] = MOST_OBJECTS,
        masks: answers.Masks = "all",
        tolerance: Annotated[float, Query(ge=0, le=20)] = 0.0,
    ) -> answers.Answer:
        """Find the objects in an image; those that the model shows by default, unless told.

        Of the masks, polygons are simplified by `tolerance` pixels; run lengths are exact.
        """
        thresholds = predictor.thresholds(score_threshold, top_k)

        def answer(content: bytes) -> answers.Answer:
            image = decode_image(content, limits.pixels)
            return answers.segment(predictor, image, thresholds, masks, tolerance)

        return await about_image(request, answer)

    @app.post("/api/prototypes", **image_in)
    async def prototypes(request: Request) -> answers.Prototypes:
        """Show what the masks in an image are made of, by the coefficients of its objects."""
        if not info.prototypes:
            raise HTTPException(404, "this model has no prototypes")

        def answer(content: bytes) -> answers.Prototypes:
            return answers.prototypes(predictor, decode_image(content, limits.pixels))

        return await about_image(request, answer)


async def _only_known_parameters(request: Request) -> None:
    """Refuse what would be ignored, as a misspelt name, or the first of two values."""
    known = [field.alias for field in request.scope["route"].dependant.query_params]
    for name in request.query_params:
        if name not in known:
            raise HTTPException(
                422, f"{name}: unknown; parameters are {', '.join(known) or 'none'}"
            )
        if len(request.query_params.getlist(name)) > 1:
            raise HTTPException(422, f"{name}: given more than once")


def _add_errors(app: FastAPI) -> None:
    """Say what is wrong in one line of JSON, whatever it is."""

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return JSONResponse({"error": f"{first['loc'][-1]}: {first['msg']}"}, 422)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": "internal error: the server's console says more"}, 500)
