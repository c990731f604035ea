"""The k-th highest entry of each row, which is quicker to find than the k highest."""

import numpy as np
import torch
from torch import Tensor


def kth_highest(rows: Tensor, k: int) -> Tensor:
    """The k-th highest entry of each row (n, m), a NaN being higher than any number; detached."""
    rows = rows.detach()
    place = rows.shape[1] - k
    if rows.device.type != "cpu":
        return rows.kthvalue(place + 1, dim=1).values
    # On a CPU, NumPy selects several times faster than PyTorch; it does not know bfloat16.
    known = rows if rows.dtype in (torch.float32, torch.float64) else rows.float()
    return torch.from_numpy(np.partition(known.numpy(), place, axis=1)[:, place]).to(rows)
