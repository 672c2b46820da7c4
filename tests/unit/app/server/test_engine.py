"""One thread predicts what waits: together, in order, and a bad image fails alone."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from melanoma_dist.app.inspection import InspectedPhoto
from melanoma_dist.app.scoring import ScoredImage
from melanoma_dist.app.server.engine import Engine
from melanoma_dist.data.photo import Photo
from melanoma_dist.errors import TrainingError


def photo(name: str) -> InspectedPhoto:
    return InspectedPhoto(Photo(name, (), Path(name)), math.nan)


class Model:
    """Echoes images, waits for a sign, and fails on one of them."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.batches: list[list[str]] = []
        self.threads: set[int] = set()

    def predict(self, photos: Sequence[InspectedPhoto]) -> list[ScoredImage]:
        self.threads.add(threading.get_ident())
        names = [each.photo.image_id for each in photos]
        self.batches.append(names)
        assert self.go.wait(10)
        if "bad" in names:
            raise TrainingError("NaN")
        return [ScoredImage(each.photo, each.blur, None) for each in photos]


def names(scored: Sequence[ScoredImage]) -> list[str]:
    return [image.photo.image_id for image in scored]


def test_what_waits_meanwhile_is_the_next_batch() -> None:
    model = Model()
    engine = Engine(model.predict, batch_size=4)

    async def clients() -> list[list[ScoredImage]]:
        requests = [asyncio.create_task(engine.predict([photo(f"{at}a"), photo(f"{at}b")])) for at in range(4)]
        await asyncio.sleep(0.2)
        model.go.set()
        return await asyncio.gather(*requests)

    answers = asyncio.run(clients())
    engine.close()
    assert [names(each) for each in answers] == [[f"{at}a", f"{at}b"] for at in range(4)]
    predicted = [name for batch in model.batches for name in batch]
    assert sorted(predicted) == sorted(f"{at}{letter}" for at in range(4) for letter in "ab")
    assert max(map(len, model.batches)) == 4
    assert len(model.batches) <= 4
    assert len(model.threads) == 1


def test_a_bad_image_fails_alone() -> None:
    model = Model()
    engine = Engine(model.predict, batch_size=8)

    async def clients() -> list[object]:
        first = asyncio.create_task(engine.predict([photo("first")]))
        await asyncio.sleep(0.1)
        rest = [asyncio.create_task(engine.predict([photo(name)])) for name in ("good", "bad", "also good")]
        await asyncio.sleep(0.1)
        model.go.set()
        return await asyncio.gather(first, *rest, return_exceptions=True)

    first, good, bad, also = asyncio.run(clients())
    engine.close()
    assert isinstance(bad, TrainingError)
    for answer, name in ((first, "first"), (good, "good"), (also, "also good")):
        assert isinstance(answer, list)
        assert names(answer) == [name]


def test_a_request_that_was_given_up_is_not_computed() -> None:
    model = Model()
    engine = Engine(model.predict, batch_size=1)

    async def clients() -> None:
        first = asyncio.create_task(engine.predict([photo("first")]))
        await asyncio.sleep(0.1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await engine.predict([photo("given up")])
        model.go.set()
        await first
        await engine.predict([photo("last")])

    asyncio.run(clients())
    engine.close()
    assert model.batches == [["first"], ["last"]]


def test_other_work_runs_between_batches_on_the_same_thread_and_its_errors_return() -> None:
    model = Model()
    model.go.set()
    engine = Engine(model.predict, batch_size=4)

    async def clients() -> None:
        await engine.predict([photo("first")])
        assert await engine.run(threading.get_ident) in model.threads
        with pytest.raises(ZeroDivisionError):
            await engine.run(lambda: 1 / 0)
        assert names(await engine.predict([photo("last")])) == ["last"]

    asyncio.run(clients())
    engine.close()


def test_closing_answers_what_waits() -> None:
    model = Model()
    engine = Engine(model.predict, batch_size=2)

    async def clients() -> list[list[ScoredImage]]:
        requests = [asyncio.create_task(engine.predict([photo(str(at))])) for at in range(5)]
        await asyncio.sleep(0.1)
        closing = asyncio.create_task(asyncio.to_thread(engine.close))
        await asyncio.sleep(0.1)
        model.go.set()
        await closing
        return await asyncio.gather(*requests)

    assert [names(each) for each in asyncio.run(clients())] == [["0"], ["1"], ["2"], ["3"], ["4"]]
