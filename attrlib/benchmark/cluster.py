"""Cells of a study on a Dask cluster: workers compute, only the process that asks writes the table."""

import functools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch

from attrlib.attacks import SUITE
from attrlib.benchmark._table import Cell, Runner

TIMEOUT = 10.0
"""Seconds within which a scheduler has to answer, and a worker has to be there."""


@contextmanager
def on_cluster(address: str) -> Iterator[Runner]:
    """Connect to a cluster for the time of the block.

    A cell whose worker is killed is made again elsewhere; what is finished is in the table already. A
    cell that fails does not stop the others: its error is raised when they are done. Workers need the
    same attrlib, one thread each (`dask worker ADDRESS --nworkers N --nthreads 1`) and, so that points
    are found once, the same folders.

    Args:
        address: Of the scheduler, such as `tcp://10.0.0.1:8786`.

    Yields:
        What `benchmark.recipes` takes as `runner`.

    Raises:
        ValueError: If there is no scheduler, or it has no workers.
        ModuleNotFoundError: If Dask is missing.
    """
    try:
        distributed: Any = import_module("distributed")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Expected dask[distributed] for a scheduler, got none; the extra cluster brings it"
        ) from error
    try:
        client = distributed.Client(address, timeout=TIMEOUT, set_as_default=False)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"Expected a Dask scheduler at {address}, got none: {reason}") from error
    with client:
        try:
            client.wait_for_workers(1, timeout=TIMEOUT)
        except TimeoutError as error:
            raise ValueError(f"Expected workers of the scheduler at {address}, got none") from error
        yield functools.partial(_run, client, distributed)


def _run(
    client: Any, distributed: Any, cells: Iterable[Cell], device: str | torch.device
) -> Iterator[tuple[Cell, list[dict[str, str]]]]:
    """Send all cells, and give each back when it is done."""
    threads = torch.get_num_threads()
    sent = {
        client.submit(_made, cell, str(device), threads, SUITE, pure=False): cell for cell in cells
    }
    failed: list[Exception] = []
    try:
        for future in distributed.as_completed(list(sent), loop=client.loop):
            try:
                rows = future.result()
            except distributed.KilledWorker as error:
                failed.append(RuntimeError(f"a cell ended its workers again and again: {error}"))
            except Exception as error:  # whatever a cell raises, the others are worth having
                failed.append(error)
            else:
                yield sent[future], rows
    finally:
        client.cancel(list(sent))
    if failed:
        raise failed[0]


def _made(cell: Cell, device: str, threads: int, suite: str) -> list[dict[str, str]]:
    """The rows of a cell, on a worker."""
    if suite != SUITE:
        raise ValueError(f"Expected workers with version {suite} of the suite, got {SUITE}")
    torch.set_num_threads(threads)
    return cell.made(device)
