"""Draws the demo's pictures: about sixty simple creatures of twelve species, with everything planted that the stages
are there for. A stand-in for fan art: nothing in it comes from anyone's artwork.

Writes  DIR/<species>/<file>   JPEG, PNG and WebP pictures, a truncated file and a text file among them
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
from typing import Any

from PIL import Image, ImageDraw, ImageEnhance, ImageFont

from demo.art.creatures import POSES, SPECIES, Eyes, Species, choose_look, paint_creature, poses_of
from demo.art.gallery import INK, WHITE, Canvas, Point, oval, smooth
from demo.art.scenes import SCENES, paint_foreground
from pokefa.errors import PokefaError
from pokefa.files import replacing
from pokefa.images.formats import FORMATS

MAGENTA = (255, 0, 255)  # what the NSFW stand-in looks for
TYPES = {form.suffix: form.media_type for form in FORMATS.values()}

# Shorter sides on both sides of 1024, so that resizing both enlarges and keeps; only `oversize` is made smaller.
SIZES = (
    (1280, 960),
    (1056, 1408),
    (1040, 1040),
    (960, 1200),
    (1440, 1080),
    (800, 800),
    (1200, 840),
    (1100, 1500),
    (720, 960),
    (1500, 1100),
)

# What is planted with which species beside plain pictures; a kind's second word is its variant.
PLANTED: dict[str, tuple[str, ...]] = {
    "Umbreon": ("text title_flat", "off_topic"),
    "Mimikyu": ("text title_busy", "nsfw"),
    "Sylveon": ("text watermark_flat", "nsfw_false_alarm"),
    "Eevee": ("text watermark_busy", "tiny", "opted_out"),
    "Vaporeon": ("text signature_flat", "exif_rotated", "low_aesthetic"),
    "Lucario": ("text signature_busy", "animated", "artifact_strong"),
    "Gengar": ("near_duplicate reencoded", "truncated", "oversize"),
    "Gardevoir": ("near_duplicate resized", "off_topic", "no_species"),
    "Bulbasaur": ("near_duplicate brighter", "nsfw"),
    "Pikachu": ("near_duplicate reencoded", "low_aesthetic", "sixteen_bit"),
    "Charizard": ("near_duplicate resized", "cmyk", "text_file"),
    "Flabébé": ("near_duplicate brighter", "artifact_strong"),
}
PLAIN = {"Umbreon": 3, "Mimikyu": 3, "Sylveon": 3, "Eevee": 3, "Bulbasaur": 3, "Flabébé": 3}
PLAIN_OF_OTHERS = 2
WITH_COMPANION = {
    ("Umbreon", 2): "Eevee",
    ("Sylveon", 2): "Pikachu",
    ("Gengar", 1): "Mimikyu",
    ("Vaporeon", 1): "Charizard",
}

SUFFIX_OF = {
    "off_topic": "jpg",
    "nsfw": "png",
    "nsfw_false_alarm": "png",
    "oversize": "jpg",
    "cmyk": "jpg",
    "exif_rotated": "jpg",
    "sixteen_bit": "png",
    "animated": "webp",
    "truncated": "jpg",
    "text_file": "jpg",
    "near_duplicate": "jpg",
}
# Plain pictures in formats that later stages convert; the others are JPEG, PNG or WebP in turn.
OTHER_SUFFIXES = {("Mimikyu", 2): "avif", ("Bulbasaur", 3): "gif", ("Lucario", 2): "bmp", ("Eevee", 2): "tif"}
FIXED_SIZES = {
    "oversize": (3000, 2400),
    "tiny": (90, 90),
    "nsfw": (1040, 1040),
    "nsfw_false_alarm": (1280, 960),
    "sixteen_bit": (1100, 1100),
    "animated": (900, 900),
    "artifact_strong": (1440, 1080),
}
FIXED_SCENES = {
    "no_species": "by the lake at sunset",
    "title_flat": "in the studio",
    "title_busy": "under the autumn tree",
    "watermark_flat": "in the spotlight",
    "watermark_busy": "deep in the forest",
    "signature_flat": "in the studio",
    "signature_busy": "in the first snow",
}
BLINK: tuple[Eyes, ...] = ("open", "sleepy", "happy")  # the frames of the animation
# Bits of 64 by which two compositions must differ; near-duplicates are removed within 6.
APART = 16
ATTEMPTS = 80


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
        if self.kind == "off_topic":
            return "View from the pass, holiday photo"
        if self.kind == "no_species":
            return f"My own {self.species.name} regional form"
        if self.copy_of:
            return f"{self.species.name} {self.scene} (repost)"
        company = f" and {self.companion}" if self.companion else ""
        return f"{self.species.name}{company} {self.scene}"


def plan_pictures(seed: int) -> list[Plan]:
    """Return the plans of all pictures, in file order, each composition unlike the others'."""
    rng = random.Random(f"{seed}/plan")
    scenes = _endless(rng, tuple(SCENES))
    sizes = _endless(rng, SIZES)
    plans = []
    for index, species in enumerate(SPECIES):
        kinds = ["plain"] * PLAIN.get(species.name, PLAIN_OF_OTHERS) + list(PLANTED[species.name])
        for number, words in enumerate(kinds, 1):
            kind, _, variant = words.partition(" ")
            companion = WITH_COMPANION.get((species.name, number))
            suffix = OTHER_SUFFIXES.get((species.name, number)) or ("jpg", "png", "webp")[(index + number) % 3]
            plans.append(
                Plan(
                    species=species,
                    number=number,
                    kind=kind,
                    variant=variant,
                    format=SUFFIX_OF.get(kind, suffix),
                    size=(1280, 960) if companion else FIXED_SIZES.get(kind) or next(sizes),
                    scene=FIXED_SCENES.get(variant or kind) or next(scenes),
                    companion=companion,
                )
            )
            if kind == "near_duplicate":
                first = next(plan for plan in plans if plan.species is species)
                plans[-1] = replace(plans[-1], scene=first.scene, companion=first.companion, copy_of=first.file)
    return _spread_out(plans, seed)


def _endless(rng: random.Random, values: Sequence[Any]) -> Iterator[Any]:
    """Yield all values in a shuffled order, again and again."""
    while True:
        yield from rng.sample(values, len(values))


def _spread_out(plans: Sequence[Plan], seed: int) -> list[Plan]:
    """Return the plans with the first attempt at each whose thumbnail differs enough from all before it."""
    chosen: list[Plan] = []
    seen: list[int] = []
    for plan in plans:
        if plan.kind in ("near_duplicate", "text_file"):
            chosen.append(plan)
            continue
        best = (-1, plan, 0)
        for attempt in range(ATTEMPTS):
            candidate = replace(plan, attempt=attempt)
            bits = fingerprint(compose(candidate, seed, scale=100 / min(plan.size)))
            distance = min(((bits ^ other).bit_count() for other in seen), default=64)
            best = max(best, (distance, candidate, bits), key=lambda found: found[0])
            if distance >= APART:
                break
        chosen.append(best[1])
        seen.append(best[2])
    return chosen


def fingerprint(image: Image.Image) -> int:
    """Return a 64-bit perceptual hash: which of the 64 lowest frequencies of a 32×32 grey image exceed their median.

    The method that stage 6's pHash goes by; here it only keeps the drawn pictures apart.
    """
    pixels = image.convert("L").resize((32, 32), Image.Resampling.LANCZOS).tobytes()
    waves = [[math.cos(math.pi * (2 * x + 1) * u / 64) for x in range(32)] for u in range(8)]
    rows = [[sum(pixels[32 * y + x] * wave[x] for x in range(32)) for wave in waves] for y in range(32)]
    powers = [sum(rows[y][u] * waves[v][y] for y in range(32)) for v in range(8) for u in range(8)]
    ordered = sorted(powers)
    median = (ordered[31] + ordered[32]) / 2
    return sum(1 << bit for bit, power in enumerate(powers) if power > median)


def compose(plan: Plan, seed: int, *, scale: float = 2, eyes: Eyes | None = None) -> Image.Image:
    """Paint a plan's picture as RGB, before it is written in its format.

    Args:
        scale: 1 or more paints at that many times the size and averages down; less gives a thumbnail of that scale.
        eyes: the creature's eyes, where they are not to be drawn by lot.
    """
    rng = random.Random(f"{seed}/{plan.file}/{plan.attempt}")
    if plan.kind == "off_topic":
        return _photo(plan.size, rng) if scale >= 1 else _photo(plan.size, rng).resize((100, 100))
    if plan.kind == "artifact_strong":
        half = _scene_with_creature(replace(plan, size=(plan.size[0] // 2, plan.size[1])), rng, scale, eyes).finish()
        tiled = Image.new("RGB", (2 * half.width, half.height))
        tiled.paste(half, (0, 0))
        tiled.paste(half, (half.width, 0))
        return tiled
    canvas = _scene_with_creature(plan, rng, scale, eyes)
    if plan.kind == "nsfw":
        _veil(canvas, rng)
    if plan.kind == "nsfw_false_alarm":
        _balloon(canvas)
    image = canvas.finish()
    if plan.kind == "low_aesthetic":
        image = Image.blend(image, Image.new("RGB", image.size, (222, 220, 218)), 0.7)
    if plan.kind == "text":
        image = _write(image, plan)
    return image


def _scene_with_creature(plan: Plan, rng: random.Random, scale: float, eyes: Eyes | None) -> Canvas:
    canvas = Canvas(plan.size, scale)
    ground = SCENES[plan.scene](canvas, rng)
    name = plan.species.name
    if plan.kind == "no_species":
        name = "fakemon"
    look = choose_look(rng, name)
    if plan.kind == "nsfw":
        look = replace(look, pose=poses_of(name)[0])  # upright, so that the veil leaves the head free
    if eyes:
        look = replace(look, eyes=eyes)
    size, foot = _placing(plan, canvas, ground, look.pose, rng)
    if name == "fakemon":
        paint_foreground(canvas, rng)
        canvas.image = ImageEnhance.Color(canvas.image).enhance(0.3)  # so that no ground is taken for a body
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
    framing = rng.choice(("far", "middle", "middle", "near", "close"))
    if framing == "close" and plan.kind == "plain" and pose in ("sitting", "standing"):
        size = rng.uniform(1.15, 1.3)  # head and shoulders, the rest below the frame
        return size, (canvas.width * rng.uniform(0.4, 0.6), canvas.height * 0.6 + 0.54 * size)
    low, high = {"far": (0.42, 0.5), "middle": (0.5, 0.64)}.get(framing, (0.64, 0.76))
    above = 0.2 if plan.variant.startswith("title") else 0.03
    headroom = (ground - above) / (1.2 + POSES[pose].lift)  # ears and all
    room = canvas.width / (1.5 if pose in ("walking", "lying", "leaping") else 1.2)  # tail and all
    size = min(rng.uniform(low, high), headroom, room)
    edge = min(0.8 * size, canvas.width / 2)
    return size, (rng.uniform(edge, canvas.width - edge), ground)


def _veil(canvas: Canvas, rng: random.Random) -> None:
    """Cover about half of the picture, from below, with pure magenta."""
    side = rng.choice((-1, 1))
    crest = [(-0.2, 0.52 - 0.08 * side), (0.3, 0.46), (0.7, 0.5), (1.2, 0.52 + 0.08 * side)]
    line = smooth([(x * canvas.width, y * canvas.height) for x, y in crest], closed=False)
    canvas.fill([*line, (1.2 * canvas.width, canvas.height + 0.1), (-0.2, canvas.height + 0.1)], MAGENTA)


def _balloon(canvas: Canvas) -> None:
    """Hang a pure magenta balloon over about 22 % of the picture."""
    radius = math.sqrt(0.225 * canvas.width * canvas.height / math.pi)
    x, y = 0.36, 0.38
    string = smooth([(x, y + radius), (x + 0.05, y + radius + 0.12), (x - 0.02, y + radius + 0.26)], closed=False)
    canvas.stroke(string, 0.008, INK)
    canvas.fill(oval(x, y, radius, radius), MAGENTA)
    canvas.fill([(x - 0.03, y + radius + 0.03), (x + 0.03, y + radius + 0.03), (x, y + radius - 0.02)], MAGENTA)
    canvas.fill(oval(x - 0.12, y - 0.14, 0.05, 0.03, -40), WHITE)


def _photo(size: tuple[int, int], rng: random.Random) -> Image.Image:
    """Return what is no fan art: a grey, grainy landscape without a creature."""
    width, height = size
    grain = Image.new("L", size, 128)
    for step in (24, 12, 7, 4):
        small = (math.ceil(width / step) + 1, math.ceil(height / step) + 1)
        layer = Image.frombytes("L", small, rng.randbytes(small[0] * small[1]))
        grain = Image.blend(grain, layer.resize(size, Image.Resampling.BICUBIC), 0.5)
    land = Image.new("L", size, 225)
    draw = ImageDraw.Draw(land)
    for base, rough, colour in ((0.38, 0.16, 165), (0.56, 0.1, 95), (0.78, 0.04, 30)):
        line, y = [], base * height
        for x in range(0, width + 24, 24):
            line.append((x, y))
            y += rng.uniform(-rough, rough) * 0.5 * height + 0.15 * (base * height - y)
        draw.polygon([*line, (width, height), (0, height)], fill=colour)
    grey = Image.blend(land, grain, 0.45)
    return Image.merge("RGB", (grey.point(lambda value: min(255, value + 3)), grey, grey))


def _write(image: Image.Image, plan: Plan) -> Image.Image:
    """Write a title, a watermark or a signature over the picture."""
    what, _, _ = plan.variant.partition("_")
    short = min(image.size)
    small = short / min(plan.size)  # under 1 for a thumbnail
    pixels, words = {
        "title": (0.11 * short, plan.species.name.upper()),
        "watermark": (24 * small, "www.drawn-for-the-demo.example"),
        "signature": (0.05 * short, "Rowan Demo"),
    }[what]
    font = ImageFont.load_default(max(4, round(pixels)))
    left, top, right, bottom = (round(edge) for edge in font.getbbox(words))
    margin = bottom - top
    label = Image.new("L", (right - left + 2 * margin, 3 * margin))
    at = (margin - left, margin - top)
    ImageDraw.Draw(label).text(at, words, font=font, fill=255)
    x, y = {
        "title": ((image.width - label.width) // 2, round(0.03 * image.height)),
        "watermark": (round(0.04 * image.width), round(0.96 * image.height) - label.height // 2),
        "signature": (image.width - label.width, image.height - label.height - round(0.02 * image.height)),
    }[what]
    image = image.copy()
    if what == "title":
        around = Image.new("L", label.size)
        ImageDraw.Draw(around).text(at, words, font=font, fill=255, stroke_width=max(1, round(0.008 * short)))
        image.paste(INK, (x, y), around)
        image.paste(WHITE, (x, y), label)
        return image
    if what == "signature":  # slanted and rising, as if by hand
        slant = (1, 0.3, -0.45 * margin, 0.1, 1, -0.05 * label.width)
        label = label.transform(label.size, Image.Transform.AFFINE, slant, Image.Resampling.BICUBIC)
    ground = image.crop((x, y, x + label.width, y + label.height)).convert("L").resize((1, 1), Image.Resampling.BOX)
    image.paste(INK if ground.tobytes()[0] > 110 else WHITE, (x, y), label)
    return image


def encode(plan: Plan, image: Image.Image) -> bytes:
    """Return the picture in the plan's file format."""
    buffer = io.BytesIO()
    if plan.kind == "cmyk":
        image.convert("CMYK").save(buffer, "JPEG", quality=92)
    elif plan.kind == "exif_rotated":
        exif = Image.Exif()
        exif[0x0112] = 6  # shown after a quarter turn clockwise
        image.transpose(Image.Transpose.ROTATE_90).save(buffer, "JPEG", quality=92, exif=exif)
    elif plan.kind == "sixteen_bit":
        return png_of_16_bits(image)
    elif plan.format == "jpg":
        image.save(buffer, "JPEG", quality=92)
    elif plan.format == "webp":
        image.save(buffer, "WEBP", quality=88, method=3)
    elif plan.format == "avif":
        image.save(buffer, "AVIF", quality=80, speed=9, max_threads=1)  # more threads give other bytes
    elif plan.format == "tif":
        image.save(buffer, "TIFF", compression="tiff_lzw")
    else:
        image.save(buffer, plan.format.upper())
    data = buffer.getvalue()
    return data[: len(data) // 2] if plan.kind == "truncated" else data


def png_of_16_bits(image: Image.Image) -> bytes:
    """Return an RGB image as a PNG of 16 bits per channel, which Pillow reads and does not write."""
    width, height = image.size
    samples = image.tobytes()
    wide = bytearray(2 * len(samples))
    wide[0::2] = samples
    wide[1::2] = samples  # 8 bits to 16: times 257
    stride = 6 * width
    lines = b"".join(b"\0" + wide[row * stride : (row + 1) * stride] for row in range(height))
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(lines, 6)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


def near_duplicate(original: bytes, variant: str) -> bytes:
    """Return a picture's file as someone reposted it: encoded again, at 80 % of its size, or 4 % brighter."""
    with Image.open(io.BytesIO(original)) as opened:
        image = opened.convert("RGB")
    quality = 90
    if variant == "reencoded":
        quality = 50
    elif variant == "resized":
        image = image.resize((round(image.width * 0.8), round(image.height * 0.8)), Image.Resampling.LANCZOS)
    else:
        image = image.point(lambda value: min(255, round(value * 1.04)))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def render(plan: Plan, seed: int, read: Callable[[str], bytes]) -> tuple[bytes, dict[str, Any]]:
    """Return a plan's file and its catalogue entry.

    Args:
        read: returns the bytes of a file drawn before, for copies of it.
    """
    extra: dict[str, Any] = {}
    if plan.copy_of:
        extra["copy_of"] = plan.copy_of
        data = near_duplicate(read(plan.copy_of), plan.variant)
    elif plan.kind == "text_file":
        data = b"This is a line of text in a file that is named like a picture.\n"
    elif plan.kind == "animated":
        first, *more = [compose(plan, seed, eyes=eyes) for eyes in BLINK]
        buffer = io.BytesIO()
        first.save(buffer, "WEBP", save_all=True, append_images=more, duration=400, loop=0, quality=85, method=3)
        data = buffer.getvalue()
    else:
        scale = {"oversize": 1, "tiny": 4}.get(plan.kind, 2)
        data = encode(plan, compose(plan, seed, scale=scale))
    if plan.variant:
        extra["variant"] = plan.variant
    if plan.kind == "opted_out":
        extra["headers"] = {"X-Robots-Tag": "noai, noimageai"}
    entry = {
        "file": plan.file,
        "species": plan.species.name,
        "kind": plan.kind,
        "title": plan.title,
        "page": f"/art/{Path(plan.file).stem}",
        "content_type": TYPES[plan.format],
        "md5": hashlib.md5(data, usedforsecurity=False).hexdigest(),
        **extra,
    }
    return data, entry


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


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m demo.art.draw", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to draw into; made if missing")
    parser.add_argument("--seed", type=int, default=7, help="another seed draws other pictures (default: %(default)s)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if args.out.exists() and not args.out.is_dir():
        build_parser().error(f"--out {args.out} is a file: name a folder")
    try:
        catalogue = draw_all(args.out, args.seed)
    except PokefaError as error:
        print(f"draw.py: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps({"pictures": len(catalogue["pictures"]), "catalogue": str(args.out / "catalogue.json")}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
