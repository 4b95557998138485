"""TorchScript models with the interface of big-lama.pt that do what a test needs."""

from __future__ import annotations

from pathlib import Path


def impossible_model(path: Path, expression: str, when: str = "True") -> Path:
    """Write a model that evaluates `expression` where `when` is true, and otherwise gives back the image."""
    return _write(
        path,
        f"""
def forward(self, image: Tensor, mask: Tensor) -> Tensor:
    if {when}:
        return image + {expression}.sum()
    return image
""",
    )


def stuck_model(path: Path, when: str) -> Path:
    """Write a model that prints `stuck` and never ends where `when` is true, and otherwise fills with mid-grey."""
    return _write(
        path,
        f"""
def forward(self, image: Tensor, mask: Tensor) -> Tensor:
    if {when}:
        print("stuck")
        while bool((image >= 0).all()):
            image = image * 1.0
    return torch.where(mask > 0, torch.full_like(image, 0.5), image)
""",
    )


def filing_model(path: Path, target: Path, *, write: bool) -> Path:
    """Write a model that fills 64 bytes of the file `target` with the letter A, or reads them."""
    return _write(
        path,
        f"""
def forward(self, image: Tensor, mask: Tensor) -> Tensor:
    held = torch.from_file({str(target)!r}, {write}, 64, dtype=torch.uint8)
    if {write}:
        held.fill_(65)
    return image + 0 * held.sum()
""",
    )


def network(path: Path) -> Path:
    """Write a small network of LaMa's shape with random weights."""
    from benchmarks.lama_network import write_network

    write_network(path, channels=8, blocks=2)
    return path


def _write(path: Path, source: str) -> Path:
    import torch

    class Model(torch.nn.Module):
        __constants__ = ("source",)  # else all of these would be of one type, and have one forward

    model = Model()
    model.source = source
    module = torch.jit.script(model)
    module.define(source)
    torch.jit.save(module, str(path))
    return path
