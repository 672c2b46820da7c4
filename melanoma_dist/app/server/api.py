"""The routes of the server: the API under ``/v1``, its description, metrics, and the files of the page."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, Response

import melanoma_dist
from melanoma_dist.app.server.description import PURPOSE
from melanoma_dist.app.server.lesions import shares
from melanoma_dist.app.server.page_files import page_files
from melanoma_dist.app.server.problems import Problem, answer_problem, answer_unexpected
from melanoma_dist.app.server.security import Gate, host_names
from melanoma_dist.app.server.service import Service
from melanoma_dist.config.metadata import FIELDS
from melanoma_dist.config.serve import ServeConfig
from melanoma_dist.pages.environment import render

_ABOUT = f"""{PURPOSE} Predictions of skin lesions by the ensemble of a run's folds.

Probabilities are calibrated. A label is called where its probability reaches the threshold that the run fixed on its
out-of-fold predictions. No image is stored."""


def build_app(service: Service, settings: ServeConfig, token: str | None) -> FastAPI:
    """The application that uvicorn or Ray Serve runs. ``token``: what requests must show; None for none."""
    app = FastAPI(
        title="melanoma-dist", description=_ABOUT, version=melanoma_dist.__version__, docs_url=None, redoc_url=None
    )
    files = page_files()
    app.add_middleware(Gate, hosts=host_names(settings), token=token, open_paths=tuple(files))
    app.add_exception_handler(Problem, answer_problem)
    app.add_exception_handler(HTTPException, answer_problem)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(Exception, answer_unexpected)
    _add_answers(app, service)
    _add_descriptions(app, service)
    for path, (content, kind) in files.items():
        _add_file(app, path, content, kind)
    return app


def _add_answers(app: FastAPI, service: Service) -> None:
    @app.post("/v1/predict", openapi_extra=_form("One or many images."), responses=_problems(400, 413, 503))
    async def predict(
        request: Request,
        preview: Annotated[bool, Query(description="Add each image as a JPEG data URL, for browsers.")] = False,
    ) -> Response:
        """Predict the images of a form.

        The answer has `purpose`, `model` (run, fingerprint, decision rules) and `images`: one object per file, in
        order, with the columns of `predict` and `folds`, the calibrated probability of each fold per label. Of a model
        that sees lesions, `lesion` has the lesion's `box` and `outline`, and the `window` that was seen. An image that
        cannot be read has its `error` and no numbers.
        """
        return JSONResponse(await service.predict(request, preview))

    @app.post("/v1/explain", openapi_extra=_form("One image."), responses=_problems(400, 413, 422, 503))
    async def explain(
        request: Request, label: Annotated[str, Query(description="Label whose evidence to find.")] = service.headline
    ) -> Response:
        """Find where in an image the folds see evidence for a label.

        The answer has `grid`: rows of numbers of 0 to 1 that cover the `window` of the upright image, or null; `trust`
        in it, 0 to 1; and both in words in `note`, for programs in `note_code`. With `Accept: image/png` it is a grey
        picture instead.
        """
        photo, evidence = await service.explain(request, label)
        if "image/png" in request.headers.get("accept", "") and evidence.grid is not None:
            return Response(evidence.png(photo.photo.width, photo.photo.height), media_type="image/png")
        grid = None if evidence.grid is None else evidence.grid.astype(np.float64).round(4).tolist()
        return JSONResponse(
            {"model": service.model, "label": label, "sha256": photo.photo.source_sha256, "grid": grid,
             "window": shares(evidence.window), "trust": evidence.trust, "note": evidence.note,
             "note_code": asdict(evidence.reason)}
        )  # fmt: skip


def _add_descriptions(app: FastAPI, service: Service) -> None:
    @app.get("/v1/model")
    async def model() -> Response:
        """Describe the model: labels, thresholds, operating points, training data; the limits of requests.

        The AUC of each label is out of fold and per image, as in the report.
        """
        return JSONResponse(service.description)

    @app.get("/v1/health")
    async def health() -> Response:
        """Tell that the server answers. It listens only once its models are loaded and warm."""
        return JSONResponse({"status": "ok"})

    @app.get("/v1/examples")
    async def examples() -> Response:
        """List images of the run's data set to try. The run was trained on them."""
        return JSONResponse([{"name": each.name, "kind": each.kind} for each in service.examples.values()])

    @app.get("/v1/examples/{name}", responses=_problems(404))
    async def example(name: str) -> Response:
        """Return an example as JPEG."""
        if name not in service.examples:
            raise Problem(404, "no_example", "There is no such example. /v1/examples lists them.")
        return Response(service.examples[name].jpeg, media_type="image/jpeg")

    @app.get("/v1/cases/{image_id}", responses=_problems(404))
    async def case(image_id: str) -> Response:
        """Return a training image, such as a neighbour of an answer, as JPEG."""
        picture = service.cases.picture(image_id)
        if picture is None:
            raise Problem(404, "no_picture", "There is no picture of that case.")
        return Response(picture, media_type="image/jpeg")

    @app.get("/metrics")
    async def metrics() -> Response:
        """Return counters and histograms in the format of Prometheus."""
        return Response(service.measurements.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(render("app/page/docs.html.j2", api=app.openapi()))


def _add_file(app: FastAPI, path: str, content: bytes, kind: str) -> None:
    async def file() -> Response:
        return Response(content, headers={"Content-Type": kind})

    app.add_api_route(path, file, methods=["GET", "HEAD"], include_in_schema=False)


async def _answer_invalid(request: Request, error: Exception) -> Response:
    """Answer a request whose query has a wrong value. The message names the field and the rule, not the value."""
    assert isinstance(error, RequestValidationError)  # noqa: S101  # nosec B101  # registered for it alone
    first = error.errors()[0]
    values = {"field": str(first["loc"][-1]), "rule": first["msg"]}
    return await answer_problem(request, Problem(400, "query", "{field}: {rule}.".format(**values), values=values))


def _form(description: str) -> dict[str, Any]:
    """The OpenAPI description of a form with files."""
    files = {"type": "array", "items": {"type": "string", "format": "binary"}, "description": description}
    once = "For models that take it: of the patient, once for all images or once for each. Unknown if it is not sent."
    about = {field: {"type": "string", "description": once} for field in FIELDS}
    schema = {"type": "object", "properties": {"images": files, **about}, "required": ["images"]}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    texts = {
        400: "The request is malformed.",
        404: "There is no such thing.",
        413: "The request is too large.",
        422: "The image cannot be read.",
        503: "The queue is full; Retry-After says when to try again.",
    }
    return {status: {"description": texts[status]} for status in statuses}
