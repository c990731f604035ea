"""A network for sentences, and the embedded inputs on which its words are explained and attacked."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from attrlib import _check, _words
from attrlib.models.networks import randomize
from attrlib.types import Ids, Inputs, Logits


class TextCNN(nn.Module):
    r"""The book's network for sentences: one convolution over word vectors, and a mean over the words.

    $$f(x) = W \, \frac{1}{n} \sum_{j=1}^{n} \sigma(K * x)_j + b$$

    with the vectors $x$ of the $n$ words of a sentence. The mean leaves the padding out. There is no
    maximum over the words and no attention, so that bounds on the words give bounds on the logits.

    It maps *embedded inputs* to logits: images (n, channels + 1, 1, words) with the vector of a word in
    each column. The last channel says where the words are, 1 for a word and 0 for padding, and the
    network reads it as true or false (above 1/2 or not): its gradient is zero, as is that of the
    padding. So everything that takes images and needs no pixels in [0, 1] takes sentences as well.
    `embed` makes these inputs from word numbers.

    Args:
        vocabulary: Number of words, padding among them, >= 3.
        channels: Length of a word vector.
        width: Words that the convolution sees at once, odd.
        hidden: Channels after the convolution.
        classes: Number of classes, >= 2.
        activation: Class of the non-linearity, called without arguments.
        generator: Source of the initial weights: normal word vectors, and PyTorch's default
            distributions for the layers; None is torch's global generator.

    Raises:
        ValueError: If a count is too small or `width` is even.
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        channels: int = 16,
        width: int = 3,
        hidden: int = 32,
        classes: int = 2,
        activation: Callable[[], nn.Module] = nn.ReLU,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        _check.count(vocabulary=vocabulary, low=3)
        _check.count(channels=channels, width=width, hidden=hidden)
        _check.count(classes=classes, low=2)
        if width % 2 == 0:
            raise ValueError(f"Expected width to be odd, got {width}")
        self.settings = {
            "vocabulary": vocabulary,
            "channels": channels,
            "width": width,
            "hidden": hidden,
            "classes": classes,
        }
        self._channels = channels
        vectors = 0.1 * torch.randn(vocabulary, channels, generator=generator)
        vectors[_words.PADDING] = 0
        self.embedding = nn.Embedding(vocabulary, channels, _words.PADDING, _weight=vectors)
        self.convolution: nn.Module = nn.utils.skip_init(  # type: ignore[no-untyped-call]
            nn.Conv2d, channels, hidden, (1, width), padding=(0, width // 2)
        )
        self.activation = activation
        self.rectify = activation()
        self.linear: nn.Module = nn.utils.skip_init(  # type: ignore[no-untyped-call]
            nn.Linear, hidden, classes
        )
        randomize(self, generator=generator)

    def embed(self, ids: Ids) -> Inputs:
        """Return the embedded inputs of sentences.

        Args:
            ids: Word numbers (n, words), padding after the last word only.

        Returns:
            Inputs (n, channels + 1, 1, words), zero at the padding; differentiable in the word vectors.

        Raises:
            TypeError: If `ids` is not int64.
            ValueError: If a number is not in the vocabulary, a sentence is empty, or a word comes after
                the padding.
        """
        _words.check_ids(ids, len(self.embedding.weight))
        vectors = self.embedding(ids).transpose(1, 2)
        return torch.cat([vectors, (ids != _words.PADDING)[:, None].to(vectors)], dim=1)[:, :, None]

    def forward(self, x: Inputs) -> Logits:
        """Return the logits (n, classes) of embedded inputs (n, channels + 1, 1, words)."""
        if x.ndim != 4 or x.shape[1:3] != (self._channels + 1, 1):
            raise ValueError(
                f"Expected x of shape (n, {self._channels + 1}, 1, words), got {tuple(x.shape)}"
            )
        real = (x[:, -1:] > 0.5).to(x)
        features = self.rectify(self.convolution(x[:, :-1] * real)) * real
        mean = features.sum((2, 3)) / real.sum((2, 3)).clamp(min=1)
        logits: Tensor = self.linear(mean)
        return logits
