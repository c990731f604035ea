"""Scores image by image."""

import pytest
import torch
from torch import nn

from attrlib.data import Images
from attrlib.models import SmallCNN
from attrlib.training import correct, evaluate, only_correct
from tests import oracles


@pytest.fixture(scope="module")
def images() -> Images:
    return Images(oracles.images(30).float(), oracles.labels(30), ("a", "b", "c"))


def _net() -> SmallCNN:
    return SmallCNN(size=8, classes=3, generator=oracles.seeded(0)).float()


@pytest.mark.parametrize("batch_size", [1, 7, 30, 100])
def test_evaluate_gives_each_score_of_each_image(images: Images, batch_size: int) -> None:
    model = nn.Sequential(nn.Dropout(0.9), _net()).train()
    scores = evaluate(
        model,
        images,
        {"correct": correct, "label": lambda m, x, y: y.to(x.dtype)},
        batch_size=batch_size,
    )
    assert torch.equal(scores["label"], images.y.to(images.x.dtype))
    with torch.no_grad():
        hits = model[1](images.x).argmax(1) == images.y  # without dropout
    assert torch.equal(scores["correct"].bool(), hits)
    assert model.training


def test_evaluate_names_what_is_wrong(images: Images) -> None:
    with pytest.raises(ValueError, match="Expected at least one score, got none"):
        evaluate(_net(), images, {})
    with pytest.raises(ValueError, match=r"Expected batch_size .* got 0"):
        evaluate(_net(), images, {"correct": correct}, batch_size=0)
    with pytest.raises(
        ValueError, match=r"Expected scores\['mean'\] to give shape \(30,\), got \(\)"
    ):
        evaluate(_net(), images, {"mean": lambda m, x, y: x.mean()})
    wrong = Images(images.x, images.y + 1, images.classes)
    with pytest.raises(ValueError, match="Expected y from 0 to 2, got 3"):
        evaluate(_net(), wrong, {"correct": correct})


def test_only_correct_keeps_the_rows_that_are_right(images: Images) -> None:
    model = _net()
    guess = model(images.x).argmax(1)
    labels = torch.where(torch.arange(30) % 3 == 0, guess, (guess + 1) % 3)
    kept = only_correct(model, Images(images.x, labels, images.classes))
    assert torch.equal(kept.x, images.x[::3])
    assert torch.equal(kept.y, guess[::3])
    with pytest.raises(ValueError, match="got 0 of 30"):
        only_correct(model, Images(images.x, (guess + 1) % 3, images.classes))
