"""Draw twelve cases of text in a picture: before, mask, after with OpenCV, and clean.

    python -m benchmarks.text_cases --picture docs/text-cases.png

Two cases per row, four pictures per case. The project draws everything in it. Run it in the environment of the ocr
stage.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

from demo.art.text_set import WITHOUT_TEXT, load_font
from preprocess.ocr.detect import LEAST_SCORE, TextRules, doubt_about, find_text
from preprocess.ocr.inpaint import paint_over
from preprocess.ocr.inpainters import InpainterModel, load_inpainter
from preprocess.ocr.models import load_detector, load_reader
from preprocess.ocr.polygons import area_frac, draw_mask
from preprocess.ocr.views import Looks

SIZE, SMALL = (960, 720), (200, 150)
COLOURS = 160
WHITE, BLACK = (250, 248, 240), (24, 20, 30)


@dataclass(frozen=True)
class Case:
    """The text, its centre as a share of the picture, and its style."""

    text: str
    font: str
    height: int
    at: tuple[float, float]
    angle: int = 0
    opacity: float = 1.0
    colour: tuple[int, int, int] = WHITE
    rim: int = 0
    ground: str = "creature"


CASES = (
    Case("@rowan_draws", "sans", 26, (0.85, 0.95)),
    Case("Rowan Demo", "handwritten", 52, (0.2, 0.9), angle=8),
    Case("do not repost", "sans", 90, (0.5, 0.5), angle=30, opacity=0.35),
    Case("無断転載禁止", "japanese", 80, (0.5, 0.45), angle=-22, opacity=0.3),
    Case("月夜のブラッキー", "japanese", 44, (0.5, 0.1), colour=BLACK),
    Case("www.drawn.example", "serif", 60, (0.5, 0.6), opacity=0.25),
    Case("UMBREON", "rounded", 110, (0.5, 0.14), rim=5),
    Case("Commission 2026", "narrow", 48, (0.5, 0.92), colour=BLACK, rim=2),
    Case("a very small line by the artist", "sans", 13, (0.5, 0.97)),
    Case("イーブイの森", "japanese", 130, (0.5, 0.5), opacity=0.5),
    Case("", "sans", 20, (0.5, 0.5), ground="eyes"),
    Case("@name", "sans", 90, (0.3, 0.55), colour=BLACK),
)


def write(clean: Image.Image, case: Case) -> Image.Image:
    """Return the picture with the case's text on it."""
    if not case.text:
        return clean
    font = load_font(case.font, case.height)
    left, top, right, bottom = (round(edge) for edge in font.getbbox(case.text))
    label = Image.new("L", (right - left + 4 * case.rim + 4, bottom - top + 4 * case.rim + 4))
    ImageDraw.Draw(label).text((2 + 2 * case.rim - left, 2 + 2 * case.rim - top), case.text, font=font, fill=255)
    label = label.rotate(case.angle, Image.Resampling.BICUBIC, expand=True)
    place = round(case.at[0] * clean.width - label.width / 2), round(case.at[1] * clean.height - label.height / 2)
    image = clean.copy()
    if case.rim:
        image.paste(
            BLACK if case.colour == WHITE else WHITE, place, label.filter(ImageFilter.MaxFilter(2 * case.rim + 1))
        )
    image.paste(case.colour, place, label.point(lambda value: round(value * case.opacity)))
    return image


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", type=Path, required=True, metavar="FILE", help="output file, PNG")
    args = parser.parse_args(argv)
    rules, detector, reader = TextRules(), load_detector(None, LEAST_SCORE, Looks())[0], load_reader()
    opencv = load_inpainter(InpainterModel("opencv", "opencv"), 1)
    sheet = Image.new("RGB", (8 * SMALL[0], len(CASES) // 2 * SMALL[1]), "white")
    for number, case in enumerate(CASES):
        clean = WITHOUT_TEXT[case.ground](SIZE, random.Random(f"case {number}"))
        image = write(clean, case)
        polygons, _ = find_text(image, detector, rules, reader)
        mask = draw_mask(polygons, image.size, rules.dilate, image)
        verdict = doubt_about(polygons, area_frac(mask), rules) or "sure"
        print(f"{case.text!r}: {[each.words for each in polygons]}, {area_frac(mask):.1%}, {verdict}")
        painted = paint_over(image, mask, opencv, coarse_to_fine=False) if polygons else image
        for column, picture in enumerate((image, mask.convert("RGB"), painted, clean)):
            small = picture.resize((SMALL[0] - 4, SMALL[1] - 4), Image.Resampling.LANCZOS)
            sheet.paste(small, ((number % 2 * 4 + column) * SMALL[0] + 2, number // 2 * SMALL[1] + 2))
    args.picture.parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(COLOURS).save(args.picture, optimize=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
