"""A training backend of one process: it reads rows from the file, and keeps one checkpoint."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from orchestrator.objectives.examples import Example
from orchestrator.training.files import read_rows, to_examples


class SingleProcessBackend:
    """The backend of a training with one worker.

    Args:
        checkpoints: folder of the last checkpoint; None: no checkpoints are stored.
        progress: called with the number of finished steps, the number of all steps, and the last
            loss.
        evaluated: called with a step and the held-out metrics after it.
    """

    rank, workers = 0, 1

    def __init__(
        self,
        checkpoints: Path | None = None,
        progress: Callable[[int, int, float], None] = lambda done, steps, loss: None,
        evaluated: Callable[[int, Mapping[str, float]], None] = lambda step, metrics: None,
    ) -> None:
        self._folder = checkpoints
        self.progress, self.evaluated = progress, evaluated

    def rows(self, file: Path, pieces: Sequence[Sequence[int]]) -> Iterator[Example]:
        """Iterate over the rows of all pieces, in order."""
        for piece in pieces:
            yield from to_examples(read_rows(file, piece))

    def save_checkpoint(self, write: Callable[[Path], None], step: int) -> None:
        """Store a checkpoint in place of the last one."""
        if self._folder is None:
            return
        partial = self._folder.with_name(f".{self._folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write(partial)
        shutil.rmtree(self._folder, ignore_errors=True)
        partial.rename(self._folder)

    @contextmanager
    def last_checkpoint(self) -> Iterator[Path | None]:
        """Provide the folder of the last checkpoint, or None."""
        exists = self._folder is not None and self._folder.is_dir()
        yield self._folder if exists else None
