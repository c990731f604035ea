"""What the ImageNet network does on photographs of ImageNet."""

import time
from pathlib import Path

import torch

from attrlib import data, metrics, models, training
from attrlib.benchmark import _table


def imagenet_accuracy(
    path: str | Path,
    folder: str | Path,
    wnids: str | Path,
    *,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> None:
    """Measure the accuracy of `models.imagenet()` on a folder of ImageNet photographs.

    Args:
        path: Table to write.
        folder: Photographs as <wnid>/<image>.
        wnids: Text file with the 1,000 WordNet identifiers in the order of the classes, one a line.
        device: Where to compute.
        progress: Show a progress bar.

    Raises:
        ValueError: If `wnids` has not 1,000 lines, or a subfolder is not among them.
        FileNotFoundError: If the folder or the file does not exist.
    """
    order = Path(wnids).read_text(encoding="utf-8").split()
    if len(order) != 1000:
        raise ValueError(f"Expected wnids to list 1000 identifiers, got {len(order)} in {wnids}")
    photographs = data.image_folder(folder, size=224)
    unknown = sorted(set(photographs.classes) - set(order))
    if unknown:
        raise ValueError(f"Expected folder with subfolders listed in wnids, got {unknown[0]}")
    index = torch.tensor([order.index(name) for name in photographs.classes], device=device)
    start = time.perf_counter()
    hits = training.evaluate(
        models.imagenet(),
        photographs,
        {"correct": lambda model, x, y: training.correct(model, x, index[y])},
        batch_size=50,
        device=device,
        progress=progress,
    )["correct"]
    seconds = time.perf_counter() - start
    low, high = metrics.interval(hits, generator=torch.Generator().manual_seed(0))
    Path(path).unlink(missing_ok=True)
    row = {"model": "efficientnet-lite0", "images": str(len(hits))}
    row |= _table.rounded({"accuracy": float(hits.mean()), "low": low, "high": high})
    _table.append(Path(path), row | _table.provenance(device, seconds=seconds))
