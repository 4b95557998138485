"""A small stand-in for the weights big-lama.pt, in the same format and with the same interface.

It is not LaMa: it fills a hole with the average of its surroundings, from coarse to fine (push and pull). On a plain
background it therefore gives the background colour. The demo and the tests use it instead of downloading 200 MB of
trained weights; the code that loads and calls it is the real one.

Writes  --out FILE, a TorchScript model: image N×3×H×W in 0..1 and mask N×1×H×W, 1 where to fill, to image N×3×H×W

    python -m demo.standins.inpaint_model --out inpaint_model.pt
    LAMA_MODEL=inpaint_model.pt python preprocess/ocr/ocr_pipeline.py run --trust-model-file
"""

from __future__ import annotations

import argparse
import inspect
import json
from collections.abc import Sequence
from pathlib import Path

from pokefa.files import replacing


def write_model(path: Path) -> None:
    """Write the model to `path` atomically."""
    import torch
    import torch.nn.functional as functional
    from torch import Tensor

    class PushPull(torch.nn.Module):
        """Averages the known pixels level by level up to one pixel, and fills the holes on the way back down.

        After Gortler et al., "The Lumigraph" (SIGGRAPH 1996), section 3.4.
        """

        def forward(self, image: Tensor, mask: Tensor) -> Tensor:
            known = (mask <= 0).to(image.dtype)
            colours = [image * known]
            weights = [known]
            while weights[-1].size(2) > 1 or weights[-1].size(3) > 1:
                colours.append(functional.avg_pool2d(colours[-1], 2, 2, 0, True, False))
                weights.append(functional.avg_pool2d(weights[-1], 2, 2, 0, True, False))
            filled = colours[-1] / weights[-1].clamp(min=1e-6)
            for level in range(len(colours) - 2, -1, -1):
                colour, weight = colours[level], weights[level]
                size = [colour.size(2), colour.size(3)]
                coarser = functional.interpolate(filled, size=size, mode="bilinear", align_corners=False)
                filled = torch.where(weight > 0, colour / weight.clamp(min=1e-6), coarser)
            # The caller truncates 0..1 to bytes: adding a quarter of a level keeps exact levels exact.
            return (filled + 0.25 / 255).clamp(0, 1)

    # Tracing would fix the number of levels, and with it the size of the image.
    script = torch.jit.script(PushPull().eval())
    with replacing(path) as stream:
        torch.jit.save(script, stream)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=inspect.cleandoc(__doc__ or ""), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the model file to write")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    write_model(args.out)
    print(json.dumps({"stage": "inpaint_model", "stand_in_for": "big-lama.pt", "path": str(args.out)}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
