"""What the server does with a request: receive images, decode them, predict them in batches, and answer."""

from __future__ import annotations

import asyncio
import base64
import io
import math
import os
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial

import numpy as np
from PIL import Image
from starlette.requests import Request

from melanoma_dist import console
from melanoma_dist.app.answers import answer_row
from melanoma_dist.app.decoders import Decoders
from melanoma_dist.app.doubts import find_doubts
from melanoma_dist.app.inspection import InspectedPhoto, inspect_bytes
from melanoma_dist.app.predictor import Predictor, open_known_images
from melanoma_dist.app.scoring import ScoredImage
from melanoma_dist.app.server.audit import EXPLAINED, PREDICTED, Audit
from melanoma_dist.app.server.cases import Cases
from melanoma_dist.app.server.description import PURPOSE, describe_limits, describe_model, identify_model
from melanoma_dist.app.server.engine import Engine, share_heap
from melanoma_dist.app.server.evidence import Evidence, find_evidence
from melanoma_dist.app.server.examples import choose_examples, headline_threshold
from melanoma_dist.app.server.lesions import describe_lesion
from melanoma_dist.app.server.limits import Occupancy, Share
from melanoma_dist.app.server.measurements import Measurements
from melanoma_dist.app.server.problems import Problem
from melanoma_dist.app.server.uploads import Upload, check_patients, receive
from melanoma_dist.config.serve import ServeConfig
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.errors import MelanomaDistError
from melanoma_dist.inference.trained_run import TrainedRun
from melanoma_dist.train.fold_data import evaluation_batch

_UNREADABLE = "unreadable"
_NEIGHBOURS = 5
_MAX_DECODERS = 8
_MOST_BYTES = 2**30  # of the uploads of all requests together

Answer = dict[str, object]


@dataclass
class _Exchange:
    """A request and what came of its images."""

    share: Share
    outcomes: list[dict[str, str]] = field(default_factory=list)


class Service:
    """Answers requests with one predictor."""

    def __init__(self, predictor: Predictor, settings: ServeConfig, dataset: Dataset | None, decoders: int) -> None:
        """``dataset``: the run's own, if it can be read. ``decoders``: number of processes that decode images."""
        run = predictor.run
        examples = [] if dataset is None else choose_examples(run, dataset, headline_threshold(predictor))
        self.cases = Cases(run, dataset)
        self.settings = settings
        self.headline = run.labels.headline
        self.examples = {example.name: example for example in examples}
        self.occupancy = Occupancy(settings.queue, _MOST_BYTES)
        self.measurements = Measurements(lambda: self.occupancy.images)
        self.model = identify_model(predictor)
        self.description = describe_model(predictor) | {"limits": describe_limits(settings)}
        self._predictor = predictor
        self._audit = Audit(predictor.fingerprint) if settings.audit else None
        pixels = settings.max_megapixels * 1_000_000
        self.decoders = Decoders(decoders, predictor.run.image_size, settings.timeout / 2, pixels)
        batch_size = settings.batch_size or evaluation_batch(predictor.run.config)
        predict = partial(predictor.predict, neighbours=_NEIGHBOURS)
        self.engine = Engine(predict, batch_size, self._observe)

    def close(self) -> None:
        """End the engine after its last batch, and all processes."""
        self.engine.close()
        self.decoders.close()

    async def predict(self, request: Request, preview: bool) -> Answer:
        """Predict the images of a form. An image that cannot be read has its error in its place.

        ``preview``: add each image as a JPEG that every browser shows. Raises Problem.
        """
        async with self._exchange(request) as exchange:
            uploads = await self._receive(request, exchange)
            async with asyncio.timeout(self.settings.timeout):
                photos = await self._decode(uploads)
                scored = await self._score(photos)
            for image in scored:
                self._note(exchange, image.photo.source_sha256, image.error or PREDICTED)
            rows = [self._row(*each) for each in zip(uploads, photos, scored, strict=True)]
            if preview:
                for row, photo in zip(rows, photos, strict=True):
                    row["preview"] = _data_url(photo.photo.jpeg)
            return {"purpose": PURPOSE, "model": self.model, "images": rows}

    async def explain(self, request: Request, label: str) -> tuple[InspectedPhoto, Evidence]:
        """Find the evidence for a label in the one image of a form. Raises Problem."""
        if label not in self._predictor.run.labels:
            labels = ", ".join(self._predictor.run.labels)
            detail = f"label {label!r} is not one of this model's: {labels}."
            raise Problem(400, "unknown_label", detail, values={"label": label, "labels": labels})
        async with self._exchange(request) as exchange:
            uploads = await self._receive(request, exchange)
            if len(uploads) != 1:
                detail = f"The form holds {len(uploads)} files; an explanation is of one."
                raise Problem(400, "not_one_file", detail, values={"files": len(uploads)})
            async with asyncio.timeout(self.settings.timeout):
                [photo] = await self._decode(uploads)
                reason = "" if photo.photo.jpeg else photo.photo.failures[0][1]
                self._note(exchange, photo.photo.source_sha256, reason or EXPLAINED)
                if photo.error is not None:
                    detail = f"The image cannot be read: {reason}."
                    raise Problem(422, photo.error.code, detail, values=photo.error.values)
                evidence = await self.engine.run(lambda: find_evidence(self._predictor, photo, label))
            return photo, evidence

    async def _receive(self, request: Request, exchange: _Exchange) -> list[Upload]:
        uploads = await receive(request, self.settings, exchange.share)
        check_patients(uploads, self._predictor.limits.metadata)
        exchange.share.hold_images(len(uploads))
        return uploads

    async def _decode(self, uploads: list[Upload]) -> list[InspectedPhoto]:
        names = [f"image {at}" for at in range(len(uploads))]  # not the client's: they may name a patient
        decoded = [self.decoders.submit(name, upload.data) for name, upload in zip(names, uploads, strict=True)]
        photos = await asyncio.gather(*map(asyncio.wrap_future, decoded))
        return [replace(photo, about=upload.about) for photo, upload in zip(photos, uploads, strict=True)]

    async def _score(self, photos: list[InspectedPhoto]) -> list[ScoredImage]:
        scored = iter(await self.engine.predict([photo for photo in photos if photo.photo.jpeg is not None]))
        return [
            next(scored) if photo.photo.jpeg is not None else ScoredImage(photo.photo, photo.blur, None)
            for photo in photos
        ]

    def _row(self, upload: Upload, photo: InspectedPhoto, image: ScoredImage) -> Answer:
        limits = self._predictor.limits
        row = {name: _plain(value) for name, value in answer_row(image, limits, self._predictor.checked).items()}
        doubts = None if image.scores is None else find_doubts(image, image.scores, limits)
        row |= {
            "image": console.printable(upload.name),
            "folds_disagree": list(doubts.disagree) if doubts else [],
            "doubts": doubts.sentences if doubts else [],
            "doubt_codes": [asdict(reason) for reason in doubts.reasons] if doubts else [],
            "error_code": asdict(photo.error) if photo.error else None,
            "folds": {},
            "neighbours": [],
            "lesion": describe_lesion(image.scores.lesion) if image.scores else None,
        }
        if image.scores is not None:
            row["folds"] = {label: image.scores.folds[:, at].tolist() for at, label in enumerate(limits.labels)}
            row["neighbours"] = [self.cases.describe(*each) for each in image.scores.nearest]
        return row

    def _observe(self, images: int, seconds: float) -> None:
        self.measurements.batch(images, seconds)
        self.occupancy.observe(images, seconds)

    def _note(self, exchange: _Exchange, sha256: str, outcome: str) -> None:
        exchange.outcomes.append({"sha256": sha256, "outcome": outcome})
        self.measurements.image(outcome if outcome in (PREDICTED, EXPLAINED) else _UNREADABLE)

    @asynccontextmanager
    async def _exchange(self, request: Request) -> AsyncIterator[_Exchange]:
        """The frame of each request: its share of the limits, its time limit, its audit line and its metrics."""
        start, status, problem, outcomes = time.monotonic(), 500, "", []
        try:
            with self.occupancy.request() as share:
                exchange = _Exchange(share)
                outcomes = exchange.outcomes
                yield exchange
                status = 200
        except TimeoutError:
            seconds = self.settings.timeout
            status, problem = 504, f"There was no answer within {seconds:g} s."
            raise Problem(status, "no_answer", problem, values={"seconds": seconds}) from None
        except Problem as error:
            status, problem = error.status, error.detail
            raise
        except MelanomaDistError as error:
            problem = str(error)
            raise Problem(status, "no_prediction", problem, values={"reason": problem}) from error
        finally:
            route, duration = request.url.path, time.monotonic() - start
            self.measurements.request(route, status, duration)
            if self._audit is not None:
                self._audit.record(secrets.token_hex(8), route, status, duration, outcomes, problem)


def _plain(value: object) -> object:
    """A value of a table as JSON has it."""
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value


def _data_url(jpeg: bytes | None) -> str | None:
    return None if jpeg is None else "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def start_service(run: TrainedRun, settings: ServeConfig) -> Service:
    """Load a run and predict once, so that the first request is as fast as the next."""
    share_heap()
    known = open_known_images(run, settings.dataset)
    gpus = min(settings.gpus, 1)
    predictor = Predictor.load(run, known, gpus, settings.decode_threads, settings.tta)
    decoders = min(len(os.sched_getaffinity(0)), _MAX_DECODERS)
    service = Service(predictor, settings, predictor.own_dataset, decoders)
    with console.phase("warming up"):
        predictor.predict([inspect_bytes("warm-up", _noise(), run.image_size)])
    return service


def _noise() -> bytes:
    """An image that is not blank, as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (256, 256, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()
