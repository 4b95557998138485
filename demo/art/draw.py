"""Draws the demo's pictures: about sixty simple creatures of twelve species, with everything planted that the stages
are there for. A stand-in for fan art: nothing in it comes from anyone's artwork.

Writes  DIR/<species>/<file>   pictures in every format that is read, a truncated file and a text file among them
        DIR/catalogue.json     {"seed", "pictures": [{file, species, kind, title, page, content_type, md5, …}]}

The same seed, Pillow and zlib give the same bytes. demo/README.md says what each kind is for.

    python -m demo.art.draw --out /tmp/drawn
    python -m demo.art.draw --out /tmp/drawn --seed 8
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
import random
import struct
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageEnhance, ImageFont

from demo.art.creatures import POSES, SPECIES, Species, choose_look, paint_creature, poses_of
from demo.art.gallery import INK, WHITE, Canvas, Point, oval
from demo.art.scenes import SCENES, paint_foreground, paint_scene
from pokefa.errors import PokefaError
from pokefa.files import replacing
from pokefa.images.formats import FORMATS

MAGENTA = (255, 0, 255)  # what the NSFW stand-in looks for
TYPES = {form.suffix: form.media_type for form in FORMATS.values()}
PILLOW_NAMES = {form.suffix: name for name, form in FORMATS.items()}
SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "jpg": {"quality": 92},
    "webp": {"quality": 88, "method": 3},
    "avif": {"quality": 80, "speed": 9, "max_threads": 1},  # more threads give other bytes
    "tif": {"compression": "tiff_lzw"},
}

# Shorter sides on both sides of 1024, so that resizing both enlarges and keeps; only `oversize` is made smaller.
_WIDTHS = (1280, 1056, 1040, 960, 1440, 800, 1200, 1100, 720, 1500)
_HEIGHTS = (960, 1408, 1040, 1200, 1080, 800, 840, 1500, 960, 1100)
SIZES = tuple(zip(_WIDTHS, _HEIGHTS, strict=True))

# What each species has, one after the other. A kind's second word is its variant, "plain" with a name has a companion.
PLANTED = {
    "Umbreon": "plain, plain Eevee, plain, text title_flat, off_topic",
    "Mimikyu": "plain, plain avif, plain, text title_busy, nsfw",
    "Sylveon": "plain, plain Pikachu, plain, text watermark_flat, nsfw_false_alarm",
    "Eevee": "plain, plain tif, plain, text watermark_busy, tiny, opted_out",
    "Vaporeon": "plain Charizard, plain, text signature_flat, exif_rotated, low_aesthetic",
    "Lucario": "plain, plain bmp, text signature_busy, animated, artifact_strong",
    "Gengar": "plain Mimikyu, plain, near_duplicate reencoded, truncated, oversize",
    "Gardevoir": "plain, plain, near_duplicate resized, off_topic, no_species",
    "Bulbasaur": "plain, plain, plain gif, near_duplicate brighter, nsfw",
    "Pikachu": "plain, plain, near_duplicate reencoded, low_aesthetic, sixteen_bit",
    "Charizard": "plain, plain, near_duplicate resized, cmyk, text_file",
    "Flabébé": "plain, plain, plain, near_duplicate brighter, artifact_strong",
}


class Fixed(NamedTuple):
    """What of a kind or a variant is not left to turns."""

    suffix: str | None = None
    size: tuple[int, int] | None = None
    scene: str | None = None


FIXED = {
    "off_topic": Fixed("jpg"),
    "nsfw": Fixed("png", (1040, 1040)),
    "nsfw_false_alarm": Fixed("png", (1280, 960)),
    "oversize": Fixed("jpg", (3000, 2400)),
    "tiny": Fixed(size=(90, 90)),
    "cmyk": Fixed("jpg"),
    "exif_rotated": Fixed("jpg"),
    "sixteen_bit": Fixed("png", (1100, 1100)),
    "animated": Fixed("webp", (900, 900)),
    "truncated": Fixed("jpg"),
    "text_file": Fixed("jpg"),
    "near_duplicate": Fixed("jpg"),
    "artifact_strong": Fixed(size=(1440, 1080)),
    "no_species": Fixed(scene="by the lake at sunset"),
    "title_flat": Fixed(scene="in the studio"),
    "title_busy": Fixed(scene="under the autumn tree"),
    "watermark_flat": Fixed(scene="at home by the window"),
    "watermark_busy": Fixed(scene="deep in the forest"),
    "signature_flat": Fixed(scene="in the studio"),
    "signature_busy": Fixed(scene="in the first snow"),
}
BLINK = ("open", "sleepy", "closed")  # the eyes in the frames of the animation
# Bits of 64 by which two compositions must differ; near-duplicates are removed within 6.
APART = 16


@dataclass(frozen=True)
class Plan:
    """One picture to draw: everything but its pixels."""

    species: Species
    number: int
    kind: str
    variant: str
    format: str
    size: tuple[int, int]
    scene: str
    companion: str | None = None
    copy_of: str | None = None
    attempt: int = 0

    @property
    def file(self) -> str:
        return f"{self.species.slug}/{self.species.slug}_{self.number:02d}_{self.kind}.{self.format}"

    @property
    def title(self) -> str:
        company = f" and {self.companion}" if self.companion else ""
        title = f"{self.species.name}{company} {self.scene}{' (repost)' if self.copy_of else ''}"
        others = {"off_topic": "View from the pass, holiday photo"}
        others["no_species"] = f"My own {self.species.name} regional form"
        return others.get(self.kind, title)


def plan_pictures(seed: int) -> list[Plan]:
    """Return the plans of all pictures, in file order, each composition unlike the others'."""
    rng = random.Random(f"{seed}/plan")
    scenes, sizes = _endless(rng, tuple(SCENES)), _endless(rng, SIZES)
    plans: list[Plan] = []
    for index, species in enumerate(SPECIES):
        first = len(plans)
        for number, words in enumerate(PLANTED[species.name].split(", "), 1):
            kind, _, variant = words.partition(" ")
            companion = variant if variant in PLANTED else None
            suffix, size, scene = FIXED.get(kind, Fixed())
            suffix = suffix or (variant if variant in TYPES else ("jpg", "png", "webp")[(index + number) % 3])
            size = (1280, 960) if companion else size or next(sizes)
            scene = FIXED.get(variant, Fixed()).scene or scene or next(scenes)
            plan = Plan(species, number, kind, "" if kind == "plain" else variant, suffix, size, scene, companion)
            if kind == "near_duplicate":
                one = plans[first]
                plan = replace(plan, scene=one.scene, companion=one.companion, copy_of=one.file)
            plans.append(plan)
    return list(_spread_out(plans, seed))


def _endless(rng: random.Random, values: Sequence[Any]) -> Iterator[Any]:
    """Yield all values in a shuffled order, again and again."""
    while True:
        yield from rng.sample(values, len(values))


def _spread_out(plans: Sequence[Plan], seed: int) -> Iterator[Plan]:
    """Yield the plans, each with the first attempt whose thumbnail differs enough from all before it."""
    seen: list[int] = []
    for plan in plans:
        chosen = plan
        while plan.kind not in ("near_duplicate", "text_file"):
            bits = fingerprint(compose(chosen, seed, scale=100 / min(plan.size)))
            if all((bits ^ other).bit_count() >= APART for other in seen):
                seen.append(bits)
                break
            chosen = replace(chosen, attempt=chosen.attempt + 1)
        yield chosen


def fingerprint(image: Image.Image) -> int:
    """Return a 64-bit perceptual hash: which of the 64 lowest frequencies of a 32×32 grey image exceed their median.

    The method that stage 6's pHash goes by; here it only keeps the drawn pictures apart.
    """
    pixels = image.convert("L").resize((32, 32), Image.Resampling.LANCZOS).tobytes()
    waves = [[math.cos(math.pi * (2 * x + 1) * u / 64) for x in range(32)] for u in range(8)]
    rows = [[sum(pixels[32 * y + x] * wave[x] for x in range(32)) for wave in waves] for y in range(32)]
    powers = [sum(rows[y][u] * waves[v][y] for y in range(32)) for v in range(8) for u in range(8)]
    middle = median(powers)
    return sum(1 << bit for bit, power in enumerate(powers) if power > middle)


def compose(plan: Plan, seed: int, *, scale: float = 2, eyes: str | None = None) -> Image.Image:
    """Paint a plan's picture as RGB, before it is written in its format.

    Args:
        scale: 1 or more paints at that many times the size and averages down; less gives a thumbnail of that scale.
        eyes: the creature's eyes, where they are not to be drawn by lot.
    """
    rng = random.Random(f"{seed}/{plan.file}/{plan.attempt}")
    if plan.kind == "off_topic":
        return _photo(plan.size, rng)
    if plan.kind == "artifact_strong":
        half = _scene_with_creature(replace(plan, size=(plan.size[0] // 2, plan.size[1])), rng, scale, eyes).finish()
        tiled = Image.new("RGB", (2 * half.width, half.height))
        tiled.paste(half, (0, 0))
        tiled.paste(half, (half.width, 0))
        return tiled
    canvas = _scene_with_creature(plan, rng, scale, eyes)
    across, down = canvas.width, canvas.height
    if plan.kind == "nsfw":  # about half of it, from below
        lean = rng.choice((-0.08, 0.08))
        canvas.fill([(0, (0.5 + lean) * down), (across, (0.5 - lean) * down), (across, down), (0, down)], MAGENTA)
    if plan.kind == "nsfw_false_alarm":  # a balloon over 22 %
        radius = math.sqrt(0.225 * across * down / math.pi)
        canvas.fill([(0.36, 0.4 + radius), (0.37, 0.4 + radius), (0.4, 0.65 + radius)], INK, line=0.004)
        canvas.fill(oval(0.36, 0.38, radius, radius), MAGENTA)
        canvas.fill(oval(0.24, 0.24, 0.05, 0.03, -40), WHITE)
    image = canvas.finish()
    if plan.kind == "low_aesthetic":
        image = Image.blend(image, Image.new("RGB", image.size, (222, 220, 218)), 0.7)
    if plan.kind == "text":
        _write(image, plan)
    return image


def _scene_with_creature(plan: Plan, rng: random.Random, scale: float, eyes: str | None) -> Canvas:
    canvas = Canvas(plan.size, scale)
    ground = paint_scene(canvas, plan.scene, rng)
    name = plan.species.name
    if plan.kind == "no_species":
        name = "fakemon"
        canvas.image = ImageEnhance.Color(canvas.image).enhance(0.3)  # so that no ground is taken for a body
    look = choose_look(rng, name)
    if plan.kind == "nsfw":
        look = replace(look, pose=poses_of(name)[0])  # upright, so that the magenta leaves the head free
    look = replace(look, eyes=eyes or look.eyes)
    size, foot = _placing(plan, canvas, ground, look.pose, rng)
    paint_creature(canvas, name, foot, size, look)
    if plan.companion:
        beside = canvas.width - foot[0], min(ground + 0.04, canvas.height - 0.03)
        paint_creature(canvas, plan.companion, beside, 0.64 * size, choose_look(rng, plan.companion))
    if name != "fakemon":
        paint_foreground(canvas, rng)
    return canvas


def _placing(plan: Plan, canvas: Canvas, ground: float, pose: str, rng: random.Random) -> tuple[float, Point]:
    """Return the creature's size and where its feet are, in the canvas's units."""
    if plan.companion:
        return rng.uniform(0.5, 0.56), (canvas.width * rng.choice((0.3, 0.7)), ground)
    if plan.kind == "nsfw_false_alarm":
        return 0.5, (canvas.width - 0.4, ground)
    if plan.kind == "nsfw":
        return 0.72, (canvas.width * rng.uniform(0.35, 0.65), ground)
    if plan.kind == "plain" and pose in ("sitting", "standing", "upright") and rng.random() < 0.25:
        size = rng.uniform(1.15, 1.3)  # head and shoulders, the rest below the frame
        return size, (canvas.width * rng.uniform(0.4, 0.6), canvas.height * 0.6 + 0.54 * size)
    above = 0.2 if plan.variant.startswith("title") else 0.03
    headroom = (ground - above) / (1.3 + POSES[pose].lift)  # ears and all
    room = canvas.width / (1.5 if pose in ("walking", "lying", "leaping") else 1.2)  # tail and all
    size = min(rng.uniform(0.5, 0.8), headroom, room)
    edge = min(0.8 * size, canvas.width / 2)
    return size, (rng.uniform(edge, canvas.width - edge), ground)


def _photo(size: tuple[int, int], rng: random.Random) -> Image.Image:
    """Return what is no fan art: a grey, grainy landscape without a creature."""
    width, height = size
    land = Image.new("L", size, 225)
    for base, rough, grey in ((0.38, 0.16, 165), (0.56, 0.1, 95), (0.78, 0.04, 30)):
        line = [(x, (base + rng.uniform(-rough, rough)) * height) for x in range(0, width + 120, 120)]
        ImageDraw.Draw(land).polygon([*line, (width, height), (0, height)], fill=grey)
    for step in (12, 4):
        small = math.ceil(width / step), math.ceil(height / step)
        grain = Image.frombytes("L", small, rng.randbytes(small[0] * small[1]))
        land = Image.blend(land, grain.resize(size, Image.Resampling.BICUBIC), 0.3)
    return Image.merge("RGB", (land.point(lambda value: min(255, value + 3)), land, land))


def _write(image: Image.Image, plan: Plan) -> None:
    """Write a title, a watermark or a signature over the picture."""
    width, height = image.size
    short = min(image.size)
    words, pixels, at, anchor, outline = {
        "title": (plan.species.name.upper(), 0.11 * short, (width / 2, 0.03 * height), "ma", 0.008 * short),
        "watermark": (
            "www.drawn-for-the-demo.example",
            24 * short / min(plan.size),
            (0.04 * width, 0.97 * height),
            "ld",
            0,
        ),
        "signature": ("Rowan Demo", 0.05 * short, (0.96 * width, 0.97 * height), "rd", 0),
    }[plan.variant.partition("_")[0]]
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(max(4, round(pixels)))
    box = [round(edge) for edge in draw.textbbox(at, words, font, anchor)]
    under = image.crop((box[0], box[1], box[2], box[3])).convert("L").resize((1, 1), Image.Resampling.BOX)
    colour = WHITE if outline or under.tobytes()[0] <= 110 else INK
    draw.text(at, words, colour, font, anchor, stroke_width=math.ceil(outline), stroke_fill=INK)


def encode(plan: Plan, image: Image.Image) -> bytes:
    """Return the picture in the plan's file format."""
    if plan.kind == "sixteen_bit":
        return png_of_16_bits(image)
    options = dict(SAVE_OPTIONS.get(plan.format, {}))
    if plan.kind == "cmyk":
        image = image.convert("CMYK")
    elif plan.kind == "exif_rotated":
        options["exif"] = exif = Image.Exif()
        exif[0x0112] = 6  # shown after a quarter turn clockwise
        image = image.transpose(Image.Transpose.ROTATE_90)
    buffer = io.BytesIO()
    image.save(buffer, PILLOW_NAMES[plan.format], **options)
    data = buffer.getvalue()
    return data[: len(data) // 2] if plan.kind == "truncated" else data


def png_of_16_bits(image: Image.Image) -> bytes:
    """Return an RGB image as a PNG of 16 bits per channel, which Pillow reads and does not write."""
    wide = bytes(value for sample in image.tobytes() for value in (sample, sample))  # 8 bits to 16: times 257
    stride = 6 * image.width
    lines = b"".join(b"\0" + wide[start : start + stride] for start in range(0, len(wide), stride))
    header = struct.pack(">IIBBBBB", *image.size, 16, 2, 0, 0, 0)
    chunks = (b"IHDR" + header, b"IDAT" + zlib.compress(lines, 6), b"IEND")
    framed = (struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def near_duplicate(original: bytes, variant: str) -> bytes:
    """Return a picture's file as someone reposted it: encoded again, at 80 % of its size, or 4 % brighter."""
    image = Image.open(io.BytesIO(original)).convert("RGB")
    if variant == "resized":
        image = image.resize((round(image.width * 0.8), round(image.height * 0.8)), Image.Resampling.LANCZOS)
    elif variant == "brighter":
        image = image.point(lambda value: min(255, round(value * 1.04)))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=50 if variant == "reencoded" else 90)
    return buffer.getvalue()


def render(plan: Plan, seed: int, read: Callable[[str], bytes]) -> tuple[bytes, dict[str, Any]]:
    """Return a plan's file and its catalogue entry.

    Args:
        read: returns the bytes of a file drawn before, for copies of it.
    """
    if plan.copy_of:
        data = near_duplicate(read(plan.copy_of), plan.variant)
    elif plan.kind == "text_file":
        data = b"This is a line of text in a file that is named like a picture.\n"
    elif plan.kind == "animated":
        first, *more = [compose(plan, seed, eyes=eyes) for eyes in BLINK]
        buffer = io.BytesIO()
        first.save(buffer, "WEBP", save_all=True, append_images=more, duration=400, loop=0, quality=85, method=3)
        data = buffer.getvalue()
    else:
        data = encode(plan, compose(plan, seed, scale={"oversize": 1, "tiny": 4}.get(plan.kind, 2)))
    more_of_it = {
        "copy_of": plan.copy_of,
        "variant": plan.variant,
        "headers": {"X-Robots-Tag": "noai, noimageai"} if plan.kind == "opted_out" else None,
    }
    return data, {
        "file": plan.file,
        "species": plan.species.name,
        "kind": plan.kind,
        "title": plan.title,
        "page": f"/art/{Path(plan.file).stem}",
        "content_type": TYPES[plan.format],
        "md5": hashlib.md5(data, usedforsecurity=False).hexdigest(),
        **{name: value for name, value in more_of_it.items() if value},
    }


def draw_all(out: Path, seed: int) -> dict[str, Any]:
    """Draw every picture into `out` and return the catalogue, which is written last."""
    entries = []
    for plan in plan_pictures(seed):
        data, entry = render(plan, seed, lambda file: (out / file).read_bytes())
        with replacing(out / plan.file) as stream:
            stream.write(data)
        entries.append(entry)
    catalogue = {"seed": seed, "pictures": sorted(entries, key=lambda entry: str(entry["file"]))}
    text = json.dumps(catalogue, indent=1, ensure_ascii=False, sort_keys=True)
    with replacing(out / "catalogue.json") as stream:
        stream.write(f"{text}\n".encode())
    return catalogue


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m demo.art.draw", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to draw into; made if missing")
    parser.add_argument("--seed", type=int, default=7, help="another seed draws other pictures (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.out.exists() and not args.out.is_dir():
        parser.error(f"--out {args.out} is a file: name a folder")
    try:
        catalogue = draw_all(args.out, args.seed)
    except PokefaError as error:
        print(f"draw.py: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps({"pictures": len(catalogue["pictures"]), "catalogue": str(args.out / "catalogue.json")}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
