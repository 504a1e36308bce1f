"""Worker processes that make shards, and end when the process that started them does."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection

from lockstep.datasets import piece
from lockstep.datasets.piece import Piece, Result
from lockstep.errors import UserError

AT_ONCE = 4
"""Pieces that a worker is given at a time: the last one of them waits for the disk."""


def run(pieces: Sequence[Piece], workers: int) -> Iterator[tuple[Piece, Result]]:
    """Make each piece; yields them as they are finished.

    Raises:
        UserError: a shard cannot be written, or a worker was killed.
    """
    workers = min(workers, len(pieces))
    if workers <= 1:
        yield from zip(pieces, piece.each(pieces))
        return
    size = max(1, min(AT_ONCE, len(pieces) // (workers * AT_ONCE)))
    groups = [pieces[start : start + size] for start in range(0, len(pieces), size)]
    # Fresh processes: HDF5's locks do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent) as pool:
        waiting = {pool.submit(_made, group): group for group in groups}
        try:
            for done in as_completed(waiting):
                yield from zip(waiting.pop(done), done.result())
        except BrokenProcessPool as error:
            raise UserError(
                "a process that preprocessed was killed, perhaps for want of memory; start again "
                "with fewer: what is finished is kept"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _made(pieces: Sequence[Piece]) -> list[Result]:
    return list(piece.each(pieces))


def _end_with_parent() -> None:
    """End this process with the one that started it, which may be killed at any time.

    Workers wait on a queue whose other end they hold themselves: they would wait forever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C goes to all processes
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
