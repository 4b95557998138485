"""A worker of the NSFW screen: it opens images in threads, one batch ahead of the model that scores them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from pokefa.engine.work import Pool, Work
from pokefa.errors import ImageError
from pokefa.images.decoding import in_decoder, readable
from pokefa.images.files import open_image
from pokefa.machine import available_cores
from pokefa.stage.runner import Row

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

# Batches per call of the work. The model waits only for the first to be opened. But the results of a call arrive
# together, so a larger number loses more when a run is killed.
BATCHES_PER_CALL = 2
LEAST_PER_CALL = 16

# A call cannot be interrupted, so its results are waited for.
GRACE_S = 300.0

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class TagModel:
    """A loaded model.

    Args:
        prepare: converts an image to the model's input, (height, width, 3) float32; called in several threads.
        scores: returns (N, tags) float32 from 0 to 1 for (N, height, width, 3) float32; called in one thread.
    """

    prepare: Callable[[Image.Image], np.ndarray]
    scores: Callable[[np.ndarray], np.ndarray]


class Screen(Protocol):
    """A model that is found and checked but not loaded, so that it can be sent to another process."""

    @property
    def label(self) -> str:
        """The model's name in the ledger: backend, name, first 12 digits of the SHA-256 of its weights."""

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags, in the order of the model's scores."""

    def load(self, threads: int) -> TagModel:
        """Load the model, with so many threads on a CPU."""


@dataclass(frozen=True)
class ScreenRows:
    """The work of one process: open the files of its rows, and get the model's scores of `tags`.

    Args:
        data: the folder that image paths are relative to.
        batch_size: images per call of the model.
        threads: number for the model, and the same number for opening files.
    """

    data: Path
    screen: Screen
    tags: tuple[str, ...]
    batch_size: int
    threads: int

    def __call__(self) -> Work[Row, dict[str, float] | ImageError]:
        import numpy as np

        model = self.screen.load(self.threads)
        places = [self.screen.tags.index(tag) for tag in self.tags]
        threads = ThreadPoolExecutor(self.threads)

        def prepare(row: Row) -> np.ndarray | ImageError:
            # The error is a result: raised, it would make the engine redo the other images of the batch.
            try:
                return model.prepare(in_decoder(open_image, readable(self.data / str(row["path_raw"]))))
            except ImageError as error:
                return error

        def score(pictures: Sequence[np.ndarray]) -> list[dict[str, float]]:
            scores = model.scores(np.stack(pictures))[:, places]
            if not np.isfinite(scores).all():
                raise ValueError("the model's scores are not finite")
            return [dict(zip(self.tags, line, strict=True)) for line in scores.tolist()]

        def screen(rows: Sequence[Row]) -> list[dict[str, float] | ImageError]:
            results: dict[int, dict[str, float] | ImageError] = {}
            batch: dict[int, np.ndarray] = {}
            ahead = max(self.batch_size, self.threads)
            for number, picture in enumerate(map_ahead(prepare, rows, threads, ahead)):
                if isinstance(picture, ImageError):
                    results[number] = picture
                else:
                    batch[number] = picture
                if batch and (len(batch) == self.batch_size or number == len(rows) - 1):
                    results.update(zip(batch, score(list(batch.values())), strict=True))
                    batch.clear()
            return [results[number] for number in range(len(rows))]

        return screen


def spread_work(batch_size: int, workers: int, threads: int | None = None) -> tuple[Pool, int]:
    """Return the pool for so many processes, and the threads of each, which together use all cores.

    Args:
        threads: threads of each process on a cluster; None = a share of this machine's cores.
    """
    images = max(BATCHES_PER_CALL * batch_size, LEAST_PER_CALL)
    pool = Pool("process", workers=workers, batch_size=images, grace=GRACE_S)
    return pool, threads or max(1, available_cores() // workers)


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], executor: Executor, ahead: int
) -> Iterator[Result]:
    """Yield function(item) for every item, in order, while the executor works on the next `ahead` items.

    Raises:
        Exception: any error of the function for the current item.
    """
    remaining = iter(items)
    waiting: deque[Future[Result]] = deque(executor.submit(function, item) for item in islice(remaining, ahead))
    try:
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(executor.submit(function, item) for item in islice(remaining, 1))
            yield result
    finally:
        for future in waiting:
            future.cancel()
