"""Pictures: each function draws on the axes it was given, and nothing else."""

import math
from collections.abc import Callable, Iterator

import matplotlib as mpl
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from attrlib import plotting
from tests import oracles

mpl.use("Agg")


@pytest.fixture
def ax(monkeypatch: pytest.MonkeyPatch) -> Iterator[Axes]:
    monkeypatch.setattr(plt, "show", lambda *_, **__: pytest.fail("show was called"))
    figure, axes = plt.subplots()
    yield axes
    assert plt.get_fignums() == [figure.number]  # no figure of its own
    figure.canvas.draw()
    plt.close(figure)


def test_shared_limit_is_a_quantile_of_absolute_values() -> None:
    a, b = torch.tensor([-3.0, 1.0]), torch.tensor([[2.0, 0.0, -1.0]])
    assert plotting.shared_limit(a, b, quantile=1.0) == 3
    assert plotting.shared_limit(a, b, quantile=0.5) == 1
    assert plotting.shared_limit(torch.zeros(4)) == 1
    extreme = torch.ones(10_000)
    extreme[0] = 1e6
    assert plotting.shared_limit(extreme) == 1


def test_shared_limit_of_very_many_values() -> None:
    values = torch.zeros(1).expand(17_000_000)  # torch.quantile refuses these
    assert plotting.shared_limit(values, quantile=0.5) == 1


@pytest.mark.parametrize("shape", [(1, 5, 6), (3, 5, 6)])
def test_images(ax: Axes, shape: tuple[int, ...]) -> None:
    x = torch.rand(shape, generator=oracles.seeded(0)).requires_grad_()
    assert plotting.show_image(x, ax=ax, title="An image") is ax
    assert ax.get_title() == "An image"
    assert ax.images[0].get_array().shape[:2] == (5, 6)
    assert ax.images[0].get_clim() == (0, 1)
    assert len(ax.get_xticks()) == len(ax.get_yticks()) == 0


@pytest.mark.parametrize("shape", [(5, 6), (2, 5, 6)])
def test_signed_maps_diverge_around_zero(ax: Axes, shape: tuple[int, ...]) -> None:
    a = torch.randn(shape, generator=oracles.seeded(0))
    assert plotting.show_map(a, ax=ax) is ax
    low, high = ax.images[0].get_clim()
    assert low == -high == -plotting.shared_limit(a.sum(0) if a.ndim == 3 else a)
    plotting.show_map(a, ax=ax, limit=7.0)
    assert ax.images[1].get_clim() == (-7, 7)
    assert ax.get_title() == ""


def test_heatmaps_start_at_zero(ax: Axes) -> None:
    h = torch.rand(5, 6, generator=oracles.seeded(0))
    assert plotting.show_heatmap(h, ax=ax, title="A heatmap") is ax
    assert ax.images[0].get_clim() == (0, plotting.shared_limit(h))
    plotting.show_heatmap(h, ax=ax, limit=0.25)
    assert ax.images[1].get_clim() == (0, 0.25)


def test_scores_draw_one_point_per_image(ax: Axes) -> None:
    scores = {"gradient": torch.linspace(0, 1, 9), "IG": torch.linspace(0, 0.5, 9)}
    assert plotting.show_scores(scores, ax=ax, label="Kendall's τ") is ax
    assert ax.get_ylabel() == "Kendall's τ"
    assert [t.get_text() for t in ax.get_xticklabels()] == ["gradient", "IG"]
    assert sum(len(c.get_offsets()) for c in ax.collections) == 18


def test_scores_that_are_undefined_are_left_out(ax: Axes) -> None:
    plotting.show_scores({"a": torch.tensor([0.1, math.nan, 0.3])}, ax=ax, label="score")
    assert ax.lines


def test_the_style_is_readable_and_can_be_set_twice() -> None:
    with mpl.rc_context():
        plotting.use_style()
        plotting.use_style()
        assert mpl.rcParams["image.interpolation"] == "nearest"
        assert mpl.rcParams["axes.facecolor"] == "white"


def test_bad_arguments_are_named(ax: Axes) -> None:
    nan = torch.full((3, 3), math.nan)
    with pytest.raises(ValueError, match="Expected maps, got none"):
        plotting.shared_limit()
    with pytest.raises(ValueError, match=r"Expected quantile in \(0, 1\], got 0\.0"):
        plotting.shared_limit(torch.ones(2), quantile=0.0)
    with pytest.raises(ValueError, match=r"Expected maps\[1\] to be finite"):
        plotting.shared_limit(torch.ones(2), nan)
    with pytest.raises(ValueError, match=r"Expected x of shape \(1 or 3, h, w\), got \(2, 4, 4\)"):
        plotting.show_image(torch.zeros(2, 4, 4), ax=ax)
    for show in (plotting.show_map, plotting.show_heatmap):
        with pytest.raises(ValueError, match=r"Expected a map .* got \(1, 1, 4, 4\)"):
            show(torch.zeros(1, 1, 4, 4), ax=ax)
        with pytest.raises(ValueError, match=r"Expected limit > 0, got 0\.0"):
            show(torch.zeros(4, 4), ax=ax, limit=0.0)
        with pytest.raises(ValueError, match="Expected map to be finite"):
            show(nan, ax=ax, limit=1.0)
    with pytest.raises(ValueError, match="Expected scores, got none"):
        plotting.show_scores({}, ax=ax, label="score")


@pytest.mark.parametrize("show", [plotting.show_maps, plotting.show_heatmaps])
def test_panels_share_one_scale(show: Callable[..., list[Axes]]) -> None:
    figure, axes = plt.subplots(1, 2)
    panels = {"weak": torch.full((3, 3), 0.5), "strong": torch.full((3, 3), 2.0)}
    assert show(panels, axes=axes) == list(axes)
    assert [ax.get_title() for ax in axes] == ["weak", "strong"]
    assert {ax.images[0].get_clim()[1] for ax in axes} == {2.0}
    show(panels, axes=axes, limit=5.0)
    assert {ax.images[-1].get_clim()[1] for ax in axes} == {5.0}
    with pytest.raises(ValueError, match="Expected axes for 2 panels, got 1"):
        show(panels, axes=axes[:1])
    with pytest.raises(ValueError, match="Expected axes for 0 panels"):
        show({}, axes=[])
    plt.close(figure)


def test_intervals(ax: Axes) -> None:
    table = {"topk": [0.5, 0.6], "topk_low": [0.4, 0.6], "topk_high": [0.7, 0.6]}
    assert plotting.show_intervals(table, "topk", at=[0, 1], ax=ax, label="noise") is ax
    assert list(ax.lines[0].get_ydata()) == [0.5, 0.6]
    with pytest.raises(ValueError, match=r"Expected mean between low and high, got 0\.9"):
        plotting.show_intervals({**table, "topk": [0.9, 0.6]}, "topk", at=[0, 1], ax=ax)
    with pytest.raises(ValueError, match="longer"):
        plotting.show_intervals(table, "topk", at=[0], ax=ax)
    with pytest.raises(ValueError, match="got no kendall"):
        plotting.show_intervals(table, "kendall", at=[0, 1], ax=ax)


@pytest.mark.parametrize("text", ["Ba$$in", "price_$5_to_$9", "a$^$b", "$\\frac$", "5 $", "a_b\\c"])
def test_texts_that_are_no_formulas_are_drawn_as_they_stand(text: str) -> None:
    figure, axes = plt.subplots(1, 2)
    plotting.show_image(torch.zeros(1, 4, 4), ax=axes[0], title=text)
    plotting.show_scores({text: torch.rand(5), "b": torch.rand(5)}, ax=axes[1], label=text)
    figure.canvas.draw()
    assert axes[0].get_title() == axes[1].get_ylabel() == axes[1].get_xticklabels()[0].get_text()
    assert axes[0].get_title() == text
    plt.close(figure)


def test_formulas_are_drawn_and_plain_texts_are_none(ax: Axes) -> None:
    plotting.show_image(torch.zeros(1, 4, 4), ax=ax, title="toy: $1 - x^2$")
    assert ax.title.get_parse_math()
    plotting.plain(ax.title, "$x^2$ \udcff")
    assert not ax.title.get_parse_math()
    assert ax.get_title() == "$x^2$ \\xff"
