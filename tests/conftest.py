"""Options and fixtures shared by all tests of the package."""

import os
from collections.abc import Iterator

import hypothesis
import jaxtyping
import pytest
import torch

# Two workers on two cores: a thread each, for what the tests start, too.
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
torch.set_num_threads(1)

# The same examples in every run, and no time limit: a busy machine is not a failure.
hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True)
hypothesis.settings.load_profile("repeatable")

DTYPES = {"float32": torch.float32, "float64": torch.float64}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="device the tests run on, such as cuda:0")
    parser.addoption(
        "--dtype",
        default="float64",
        choices=sorted(DTYPES),
        help="floating point type of the tests; tolerances are meant for float64",
    )


def pytest_configure(config: pytest.Config) -> None:
    """On a GPU, compute as exactly as on a CPU, and the same each time."""
    if config.getoption("--device") != "cpu":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On another device, run only the tests that use it."""
    if config.getoption("--device") != "cpu":
        there = [item for item in items if "device" in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=[item for item in items if item not in there])
        items[:] = there


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.config.getoption("--device"))


@pytest.fixture(scope="session")
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return DTYPES[request.config.getoption("--dtype")]


@pytest.fixture
def generator() -> torch.Generator:
    """A fresh generator, on the CPU whatever the device: the same numbers everywhere."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Make new tensors and models use the dtype of the run; doctests keep float32."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(autouse=True)
def _same_weights() -> None:
    """A network made without a generator has the same weights in every run: no test fails by luck."""
    torch.manual_seed(0)


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """Switch off the shape checks that only tests have, to see what a user sees."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)
