"""Several processes that train one model: each has all weights and all data, and computes its rows.

Gradients are added up by hand: the wrappers for data-parallel training do not see the second
derivatives that most terms need. Lightning Fabric starts and connects the processes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attrlib import _check


@dataclass(frozen=True)
class Team:
    """The processes of a run; one that is alone needs no Fabric."""

    device: torch.device
    fabric: Any = None

    @property
    def size(self) -> int:
        """Number of processes."""
        return 1 if self.fabric is None else int(self.fabric.world_size)

    @property
    def leads(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.fabric is None or bool(self.fabric.is_global_zero)

    def share(self, count: int) -> tuple[slice, bool]:
        """Rows of this process in a batch, and whether they count.

        With more processes than rows, the others compute the first row and throw it away: all processes
        must draw the same noise.
        """
        if self.fabric is None:
            return slice(0, count), True
        rank, size = int(self.fabric.global_rank), self.size
        rows = slice(count * rank // size, count * (rank + 1) // size)
        return (rows, True) if rows.start < rows.stop else (slice(0, 1), False)

    def add_up(self, model: nn.Module, sums: Tensor) -> Tensor:
        """Add the gradients, in place, and the sums over all processes."""
        if self.fabric is None:
            return sums
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        vector = torch.cat([g.reshape(-1) for g in grads] + [sums.to(grads[0].dtype)])
        vector = torch.as_tensor(self.fabric.all_reduce(vector, reduce_op="sum"))
        sizes = [g.numel() for g in grads] + [len(sums)]
        *parts, total = torch.split(vector, sizes)
        for grad, part in zip(grads, parts, strict=True):
            grad.copy_(part.view_as(grad))
        added: Tensor = total.to(sums.dtype)
        return added

    def first(self, action: Callable[[], object]) -> None:
        """Let the first process do something; what it raises there is raised in every process."""
        failure: Exception | None = None
        if self.leads:
            try:
                action()
            except (OSError, ValueError) as error:
                failure = error
        if self.fabric is not None:
            failure = self.fabric.broadcast(failure)
        if failure is not None:
            raise failure

    def check_equal(self, **values: object) -> None:
        """Raise in every process that was not called with what the first was called with."""
        for name, value in values.items() if self.fabric is not None else ():
            first = self.fabric.broadcast(value)
            if first != value:
                raise ValueError(f"Expected {name} as in the first process, {first}, got {value}")


def gather(device: str | torch.device, *, devices: int, nodes: int) -> Team:
    """Start the other processes, or take one's place among them."""
    _check.count(devices=devices, nodes=nodes)
    device = torch.device(device)
    if devices * nodes == 1:
        return Team(device)
    try:
        from lightning.fabric import Fabric  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        try:
            from lightning_fabric import Fabric
        except ImportError as error:
            raise ImportError(
                f"Expected Lightning Fabric for devices × nodes = {devices * nodes}: "
                "pip install 'attrlib[cluster]'"
            ) from error
    fabric = Fabric(accelerator=device.type, devices=devices, num_nodes=nodes, strategy="ddp")
    fabric.launch()
    return Team(fabric.device, fabric)


def leads() -> bool:
    """Whether this process is the only one, or the first of a run of several."""
    distributed = torch.distributed
    return not (distributed.is_available() and distributed.is_initialized()) or (
        distributed.get_rank() == 0
    )
