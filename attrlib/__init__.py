"""Robust feature attributions: measure, attack, train and certify explanations of a network.

Each submodule is one subject and loads on first use: `attrlib.attributions.gradient(model, x, y)`.
"""

import importlib
from types import ModuleType

__version__ = "0.1.0"

__all__ = [
    "activations",
    "attacks",
    "attributions",
    "benchmark",
    "book",
    "certificates",
    "checkpoints",
    "data",
    "energy",
    "faithfulness",
    "maps",
    "metrics",
    "models",
    "plotting",
    "recipes",
    "regularizers",
    "sensitivity",
    "training",
    "types",
]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
