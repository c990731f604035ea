"""Trained networks in a folder of the caller's own: each must be what the name of its file says."""

from pathlib import Path

from attrlib import checkpoints


def named(folder: Path, name: str, seed: int) -> tuple[Path, checkpoints.Checkpoint]:
    """Load the checkpoint of a recipe and a seed from a folder, as `python -m attrlib train` writes it.

    Args:
        folder: Where `NAME-sSEED.safetensors` is.
        name: Of the recipe.
        seed: Of the training.

    Returns:
        The file and its checkpoint.

    Raises:
        ValueError: If the file is damaged, or of another recipe or seed.
        FileNotFoundError: If there is no such file.
    """
    path = folder / f"{name}-s{seed}.safetensors"
    found = checkpoints.load(path)
    made = found.recipe.get("name"), found.recipe.get("seed")
    if made != (name, seed):
        raise ValueError(
            f"Expected {path} to be of recipe {name} and seed {seed}, as its name says, "
            f"got {made[0]} and {made[1]}"
        )
    return path, found
