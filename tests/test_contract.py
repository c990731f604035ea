"""What all public callables promise, in one table: add a row for each new one.

`tests.rows.ROWS` is the table. A row says what a callable takes and gives, whether it draws noise, and
whether it can be differentiated; the tests below hold for every row. `test_no_callable_is_missing`
fails when a public function of `SUBJECTS` has no row.
"""

import importlib
import inspect
import random
from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import attrlib
from attrlib import attacks, attributions, certificates, energy, maps, metrics, sensitivity
from tests import oracles
from tests.rows import QUOTIENTS, ROWS, SIZE, N, Row

SUBJECTS: tuple[ModuleType, ...] = (attributions, energy, maps, metrics, sensitivity)
NOT_PER_ROW = {
    "wrap": "makes an attribution, which has a row; see test_wrap.py",
    "interval": "summarises all samples; see test_metrics.py",
    "seed_interval": "summarises all seeds and samples; see test_identity.py",
    **dict.fromkeys(
        ("identification", "rank_one", "specific", "outside_template"),
        "compare each sample with the others; see test_identity.py",
    ),
    "corrected": "takes scores, not maps; see test_lens.py",
    **dict.fromkeys(("auroc", "group_means"), "take scores; see test_leakage.py"),
    "soft_minimum": "takes logits; see test_energy.py",
    **dict.fromkeys(QUOTIENTS, "take maps and images; see test_sensitivity.py"),
    "density_shift": "measures all samples by their spread; see test_energy.py",
    "standard": "makes an attack, which has a row; see test_attack_suite.py",
    "Crossing": "makes points of others; see test_crossing.py",
    "UnattackedWarning": "a warning; see test_attack_options.py",
    "ascend": "the loop inside PGD and AttributionAttack; see test_attacks.py",
    **dict.fromkeys(
        (
            *("gradient_bounds", "input_x_gradient_bounds", "integrated_gradients_bounds"),
            *("certified_topk", "lens_in_box", "cosine_in_box", "kendall_in_box"),
            *("logit_bounds", "accuracy_in_box"),
        ),
        "give or take boxes; see test_certificates_interval.py and test_certificates_boxes.py",
    ),
    **dict.fromkeys(
        ("normalized", "clipped", "sparsified", "smoothed"),
        "make an attribution, which has a row; see test_certificate_smoothing.py",
    ),
    **dict.fromkeys(
        ("certify", "smallest_radius", "Certificate"),
        "a promise with its parts; see test_certificate_smoothing.py",
    ),
    **dict.fromkeys(
        (
            *("lost_volume", "distance_at", "UniformBall", "Gaussian", "worst_cosine"),
            *("certified_cosine", "certified_radius", "minimal_smoothing_radius", "largest_loss"),
        ),
        "take numbers; see test_certificate_geometry.py",
    ),
    **dict.fromkeys(
        ("hoeffding", "bernstein", "betting", "vector_error", "entry_bounds"),
        "take samples; see test_certificate_confidence.py",
    ),
    **dict.fromkeys(
        (
            *("certified_topk_overlap", "certified_kendall", "certified_pixels", "Pixels"),
            *("soft_stability", "Stability", "stability_samples"),
            *("first_order_estimate", "FirstOrder"),
        ),
        "take bounds or a set, or estimate; see test_certificate_topk.py",
    ),
    **dict.fromkeys(("Ball", "LinfBall", "L2Ball"), "parts of an attack; see test_attack_balls.py"),
    **dict.fromkeys(
        (
            *("word_integrated_gradients", "WordBall", "SynonymAttack", "RandomSynonyms"),
            *("AllSynonyms", "Columns", "synonym_box", "certified_words", "certified_label"),
            *("word_neighbours", "word_lens_recall", "valence_agreement"),
        ),
        "take sentences; see test_text_network, test_word_metrics, test_synonyms and "
        "test_certificates_words",
    ),
}

every_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
random_rows = pytest.mark.parametrize(
    "row", [r for r in ROWS.values() if r.random], ids=[k for k, r in ROWS.items() if r.random]
)
model_rows = pytest.mark.parametrize(
    "row",
    [r for r in ROWS.values() if r.takes == "model"],
    ids=[k for k, r in ROWS.items() if r.takes == "model"],
)


class Case(NamedTuple):
    """Arguments for a row; `tensors` are the floating-point ones."""

    row: Row
    model: nn.Module
    tensors: tuple[Tensor, ...]
    y: Tensor

    def __call__(self, *tensors: Tensor, seed: int = 0) -> Tensor:
        tensors = tensors or self.tensors
        if self.row.takes != "model":
            return self.row.call(*tensors)
        noise = {"generator": oracles.seeded(seed)} if self.row.random else {}
        return self.row.call(self.model, *tensors, self.y, **noise)


def _case(row: Row, dtype: torch.dtype, device: torch.device, n: int = N) -> Case:
    channels = 1 if row.takes == "model" else 2
    count = 2 if row.takes in ("maps", "heatmaps") else 1
    tensors = [oracles.images(n, channels=channels, seed=s).to(device, dtype) for s in range(count)]
    if row.takes in ("maps", "map"):
        tensors = [t - 0.5 for t in tensors]
    if row.takes in ("heatmaps", "heatmap", "mask"):
        tensors = [t[:, 0] for t in tensors]
    if row.takes == "mask":
        tensors = [t > 0.8 for t in tensors]
    model = oracles.softplus_net().to(device, dtype)
    return Case(row, model, tuple(tensors), oracles.labels(n).to(device))


def _name(call: Callable[..., Tensor]) -> str:
    """The name of a function, of what a partial binds, or of the class of an attack."""
    function = getattr(call, "func", call)
    return getattr(function, "__name__", type(function).__name__)


def _public(module: ModuleType) -> dict[str, Callable[..., object]]:
    """The functions that a module, or a part of it, defines itself."""
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and f"{value.__module__}.".startswith(f"{module.__name__}.")
        and not name.startswith("_")
    }


def test_no_callable_is_missing() -> None:
    covered = {_name(row.call) for row in ROWS.values()}
    public = {name for module in SUBJECTS for name in _public(module)}
    for module in (attacks, certificates):
        public |= {name for name in module.__all__ if callable(getattr(module, name))}
    assert public - covered == set(NOT_PER_ROW)
    for module in SUBJECTS:
        assert set(_public(module)) <= {*module.__all__} if hasattr(module, "__all__") else True


@every_row
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_shape_dtype_and_device(row: Row, kind: torch.dtype, device: torch.device) -> None:
    case = _case(row, kind, device)
    result, x = case(), case.tensors[0]
    shape = {
        "like x": x.shape,
        "per sample": (N,),
        "heatmap": (N, SIZE, SIZE),
        "mask": (N, SIZE, SIZE),
        "point": (N, 2),
    }
    assert result.shape == shape[row.gives]
    assert result.dtype == (torch.bool if row.gives == "mask" else kind)
    assert result.device == x.device
    assert torch.isfinite(result).all()


@every_row
@pytest.mark.parametrize("leaf", [False, True])
def test_the_callers_tensors_are_untouched(
    row: Row, leaf: bool, dtype: torch.dtype, device: torch.device
) -> None:
    if leaf and row.refuses:
        pytest.skip("refused, see test_differentiable_exactly_when_promised")
    case = _case(row, dtype, device)
    given = (*case.tensors, case.y)
    for tensor in case.tensors:
        if tensor.is_floating_point():
            tensor.requires_grad_(leaf)
    before = [(t.detach().clone(), t._version, t.requires_grad) for t in given]
    result = case()
    if row.gives != "mask" and not leaf:
        result += 1  # the result is the caller's own: it must not share memory with what was given
    for tensor, (values, version, requires_grad) in zip(given, before, strict=True):
        assert torch.equal(tensor.detach(), values)
        assert tensor._version == version
        assert tensor.requires_grad == requires_grad
        assert tensor.grad is None


@model_rows
@pytest.mark.parametrize("leaf", [False, True])
def test_the_model_is_untouched(
    row: Row, leaf: bool, dtype: torch.dtype, device: torch.device
) -> None:
    case = _case(row, dtype, device)
    case.tensors[0].requires_grad_(leaf and not row.refuses)
    case.model.train()
    case.model.layers[0].eval()
    case.model.layers[5].weight.requires_grad_(False)
    for number, p in enumerate(case.model.parameters()):
        p.grad = torch.full_like(p, number) if p.requires_grad and number % 2 else None
    modes = [m.training for m in case.model.modules()]
    before = [
        (p.detach().clone(), p.requires_grad, p.grad if p.grad is None else p.grad.clone())
        for p in case.model.parameters()
    ]
    case()
    assert [m.training for m in case.model.modules()] == modes
    for p, (values, requires_grad, grad) in zip(case.model.parameters(), before, strict=True):
        assert torch.equal(p, values)
        assert p.requires_grad == requires_grad
        assert p.grad is None if grad is None else torch.equal(p.grad, grad)


@every_row
@pytest.mark.usefixtures("unchecked_shapes")  # the shape checker draws numbers itself
def test_global_random_states_are_untouched(
    row: Row, dtype: torch.dtype, device: torch.device
) -> None:
    case = _case(row, dtype, device)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    case()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert random.getstate() == before[2]


@every_row
def test_a_row_does_not_depend_on_the_others(
    row: Row, dtype: torch.dtype, device: torch.device
) -> None:
    case = _case(row, dtype, device)
    first = case()
    for i in range(N):
        others = [t.roll(1 + j, dims=-1) for j, t in enumerate(case.tensors)]
        for t, original in zip(others, case.tensors, strict=True):
            t[i] = original[i]
        changed = case(*others)
        assert torch.equal(changed[i], first[i])
        assert not torch.equal(changed, first)


@every_row
def test_equal_generators_give_equal_results(
    row: Row, dtype: torch.dtype, device: torch.device
) -> None:
    case = _case(row, dtype, device)
    assert torch.equal(case(seed=5), case(seed=5))


@random_rows
def test_noise_comes_from_the_generator(row: Row, dtype: torch.dtype, device: torch.device) -> None:
    case = _case(row, dtype, device)
    assert not torch.equal(case(seed=5), case(seed=6))
    noise = oracles.seeded(5)
    first, second = (row.call(case.model, *case.tensors, case.y, generator=noise) for _ in range(2))
    assert not torch.equal(first, second)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        silent = row.call(case.model, *case.tensors, case.y)
        torch.manual_seed(5)  # the global generator of another device gives other numbers
        again = first if device.type == "cpu" else row.call(case.model, *case.tensors, case.y)
        assert torch.equal(silent, again)


@model_rows
def test_every_attribution_takes_a_generator(row: Row) -> None:
    function = getattr(row.call, "func", row.call)
    if row.gives == "like x":
        parameter = inspect.signature(function).parameters["generator"]
        assert (parameter.kind, parameter.default) == (inspect.Parameter.KEYWORD_ONLY, None)


@every_row
def test_differentiable_exactly_when_promised(
    row: Row, dtype: torch.dtype, device: torch.device
) -> None:
    case = _case(row, dtype, device)
    plain = case()
    if row.forward:
        assert plain.requires_grad
    else:
        assert not plain.requires_grad
    leaves = [t.clone().requires_grad_(t.is_floating_point()) for t in case.tensors]
    if row.refuses:
        with pytest.raises(ValueError, match="Expected x that requires no grad"):
            case(*leaves)
    else:
        tracked = case(*leaves)
        assert tracked.requires_grad == row.differentiable
        assert torch.equal(tracked, plain)
    with torch.no_grad():
        silent = case(*leaves)
    assert not silent.requires_grad
    assert torch.equal(silent, plain)


@every_row
def test_derivatives_are_right(row: Row, device: torch.device) -> None:
    if not (row.differentiable and row.exact):
        pytest.skip("not promised")
    case = _case(row, torch.float64, device, n=2)
    leaves = [t.clone().requires_grad_() for t in case.tensors]
    assert torch.autograd.gradcheck(case, leaves, fast_mode=True)


@every_row
def test_memory_layout_does_not_matter(row: Row, dtype: torch.dtype, device: torch.device) -> None:
    case = _case(row, dtype, device)
    strided = [torch.stack([t, t], -1)[..., 1] for t in case.tensors]
    assert not strided[0].is_contiguous()
    torch.testing.assert_close(case(*strided), case())
    if case.tensors[0].ndim == 4:
        last = [t.contiguous(memory_format=torch.channels_last) for t in case.tensors]
        torch.testing.assert_close(case(*last), case())


@every_row
def test_one_sample_is_a_batch(row: Row, dtype: torch.dtype, device: torch.device) -> None:
    case = _case(row, dtype, device, n=1)
    assert torch.isfinite(case()).all()


@every_row
def test_half_precision_stays(row: Row, device: torch.device) -> None:
    case = _case(row, torch.bfloat16, device)
    assert case().dtype == (torch.bool if row.gives == "mask" else torch.bfloat16)


@every_row
@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_tensors_are_named(row: Row, dtype: torch.dtype, device: torch.device) -> None:
    case = _case(row, dtype, device)
    t, *rest = case.tensors
    parameters = list(inspect.signature(row.call).parameters)
    name = parameters[1 if row.takes == "model" else 0]
    if row.takes == "mask":
        with pytest.raises(TypeError, match=f"Expected {name} to be a boolean tensor, got"):
            case(t.double())
        with pytest.raises(ValueError, match=rf"Expected {name} to be sets .* \({N}, {SIZE**2}\)"):
            case(t.flatten(1))
        return
    with pytest.raises(TypeError, match=f"Expected {name} to be a floating-point tensor, got"):
        case((100 * t).long(), *rest)
    with pytest.raises(TypeError, match=rf"Expected {name} to be a torch.Tensor, got ndarray"):
        case(t.cpu().numpy(), *rest)
    with pytest.raises(ValueError, match=rf"Expected {name} to be a non-empty batch .* \(0, "):
        case(t[:0], *rest)
    with pytest.raises(ValueError, match=rf"Expected {name} to be a non-empty batch .* \(8,\)"):
        case(t.reshape(-1)[:8], *rest)
    if row.looks:
        broken = t.clone()
        broken.view(N, -1)[2, 5] = torch.nan
        broken.view(N, -1)[3, 0] = torch.inf
        with pytest.raises(ValueError, match=rf"Expected {name} .*infinity in 2 of 4 samples"):
            case(broken, *rest)
    if row.takes in ("map", "heatmap", "heatmaps"):
        with pytest.raises(ValueError, match=rf"Expected {name} to be .*got shape \({N}, 64\)"):
            case(t.reshape(N, -1)[:, :64], *rest)
    if rest:
        with pytest.raises(ValueError, match=r"Expected a and b to have one shape, got a .*, b "):
            case(t, rest[0][..., :-1])
        if row.looks:
            with pytest.raises(ValueError, match="Expected b to be finite"):
                case(t, rest[0] / 0)


@model_rows
@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_labels_and_models_are_named(
    row: Row, dtype: torch.dtype, device: torch.device
) -> None:
    case = _case(row, dtype, device)
    for bad in (case.y.int(), case.y.double(), case.y == 1):
        with pytest.raises(TypeError, match=f"Expected y to be an int64 tensor, got {bad.dtype}"):
            case._replace(y=bad)()
    with pytest.raises(TypeError, match="Expected y to be an int64 tensor, got list"):
        case._replace(y=[0, 1, 2, 0])()
    for bad in (case.y[:-1], case.y[:, None], case.y[0]):
        with pytest.raises(ValueError, match=r"Expected y of shape \(4,\), got"):
            case._replace(y=bad)()
    for value in (-1, oracles.CLASSES):
        with pytest.raises(ValueError, match=f"Expected y from 0 to 2, got {value}"):
            case._replace(y=torch.full_like(case.y, value))()
    with pytest.raises(ValueError, match=r"Expected y on the device of x, .* got meta"):
        case._replace(y=case.y.to("meta"))()
    with pytest.raises(ValueError, match=r"Expected model\(x\) to be logits \(\d+, classes\)"):
        case._replace(model=nn.Identity())()
    with pytest.raises(ValueError, match=r"Expected (x|baseline) of shape .*\(.?.?., 1, 8, "):
        case(case.tensors[0][..., :4])


@model_rows
def test_inference_mode_is_refused_where_gradients_are_taken(
    row: Row, dtype: torch.dtype, device: torch.device
) -> None:
    case = _case(row, dtype, device)
    if not row.gradients:
        with torch.inference_mode():
            assert torch.isfinite(case()).all()
        return
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"outside torch.inference_mode"):
        case()


def test_a_tensor_made_in_inference_mode_is_refused(dtype: torch.dtype) -> None:
    with torch.inference_mode():
        x = oracles.images().to(dtype)
    with pytest.raises(RuntimeError, match=r"outside torch.inference_mode"):
        attributions.gradient(oracles.softplus_net().to(dtype), x, oracles.labels())


# --- docstrings -----------------------------------------------------------------------------------

DOCUMENTED = [
    pytest.param(function, id=f"{name}.{function.__name__}")
    for name in (*attrlib.__all__, "__main__")
    if name not in ("book", "types")
    for function in _public(importlib.import_module(f"attrlib.{name}")).values()
]


@pytest.mark.parametrize("function", DOCUMENTED)
def test_docstrings_say_what_goes_in_and_out(function: Callable[..., object]) -> None:
    function = inspect.unwrap(function)
    text = inspect.getdoc(function) or ""
    signature = inspect.signature(function)
    if signature.parameters:
        _, found, after = text.partition("\nArgs:\n")
        assert found, "no section Args"
        section = after.split("\n\n")[0]
        described = [
            line.split(":")[0].strip() for line in section.splitlines() if line[4:5].strip()
        ]
        assert described == list(signature.parameters)
    returns = signature.return_annotation
    kinds = "Returns", "Yields"
    assert any(f"\n{kind}:\n" in text for kind in kinds) == (returns not in (None, "None"))
    source = inspect.getsource(function).replace(function.__doc__ or "", "")
    if "raise " in source or "_check." in source:
        assert "\nRaises:\n" in text
