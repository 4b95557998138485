"""The records of takedowns, metadata/takedowns/<run_id>.json, and what they keep from coming back.

A record says who was taken down, why, when, what was requested and what was removed. It is written before the first
byte is removed, with the perceptual hash of each downloaded image. With that hash, and the rows that stay in
images.csv, the scraper recognizes the image under another address or with other bytes.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from pokefa.errors import ImageError, InputError, PokefaError, first_line
from pokefa.files import replacing_privately
from pokefa.images.decoding import DECODER_SLUGS, in_decoder, readable
from pokefa.images.phash import THRESHOLD, Hash, is_flat
from pokefa.ledger.columns import TAKEN_DOWN
from pokefa.ledger.table import KEY
from pokefa.ledger.tables import TAKEDOWNS_FOLDER
from pokefa.takedown.addresses import Addresses


@dataclass(frozen=True)
class Record:
    """One takedown.

    Args:
        asked: the names on the command line, by flag.
        images: image_id, sha256, source_url, source_page, phash and phash_contrast of the downloaded file of each
            image; the hashes are None if the file was missing already.
        removed: the files that were removed, and those that were rewritten without the images.
        finished: when the last byte was removed; None if the run is in progress or was killed.
    """

    run_id: str
    ts: str
    reason: str
    asked: Mapping[str, Any]
    images: tuple[Mapping[str, Any], ...]
    removed: Mapping[str, Any] = field(default_factory=dict)
    finished: str | None = None

    @property
    def image_ids(self) -> set[str]:
        return {str(image[KEY]) for image in self.images}

    def write(self, root: Path) -> None:
        """Write the record to disk.

        Raises:
            PokefaError: it cannot be written.
        """
        text = json.dumps(asdict(self), ensure_ascii=False, indent=1, sort_keys=True) + "\n"
        with replacing_privately(root / TAKEDOWNS_FOLDER / f"{self.run_id}.json") as stream:
            stream.write(text.encode())


def read_records(root: Path) -> list[Record]:
    """Return all records, the oldest first.

    Raises:
        InputError: one is damaged.
    """
    records = []
    for path in sorted((root / TAKEDOWNS_FOLDER).glob("*.json")):
        try:
            record = Record(**json.loads(path.read_text(encoding="utf-8")))
            records.append(replace(record, images=tuple({**image, KEY: str(image[KEY])} for image in record.images)))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"{TAKEDOWNS_FOLDER}/{path.name} is damaged ({first_line(error)}): restore it, since images of "
                "artists who asked are known by it"
            ) from None
    return records


def hash_picture(picture: Path | bytes) -> Hash | None:
    """Return the hash of an image file or its bytes, or None if it cannot be opened.

    Raises:
        ImageError: it exceeds the limits on time or memory.
        PokefaError: the libraries of the hash are not installed.
    """
    require_libraries()
    from pokefa.images.phash import hash_file

    try:
        hashed = in_decoder(hash_file, picture if isinstance(picture, bytes) else readable(picture))
    except ImageError as error:
        if error.slug in DECODER_SLUGS:
            raise
        return None
    return Hash(hashed.phash, hashed.contrast)


@dataclass(frozen=True)
class TakenDown:
    """What must not come back: images by id, by address and by hash.

    Args:
        threshold: two hashes that differ in at most this many of 64 bits belong to the same picture.
    """

    ids: frozenset[str]
    addresses: Container[str]
    hashes: tuple[tuple[int, str], ...]  # hash and image_id
    threshold: int

    def nearest(self, hashed: Hash) -> tuple[str, int] | None:
        """Return the matching image and the number of differing bits, or None if no image matches."""
        if not self.hashes or is_flat(hashed):
            return None
        own = int(hashed.phash, 16)
        distance, image_id = min(((own ^ other).bit_count(), image_id) for other, image_id in self.hashes)
        return (image_id, distance) if distance <= self.threshold else None


def read_taken_down(root: Path, images: pl.DataFrame, threshold: int) -> TakenDown | None:
    """Return what must not come back, or None if nothing was taken down.

    Args:
        images: cell texts of image_id, source_url, drop_reason, phash64 and phash_contrast.

    Raises:
        InputError: a record is damaged.
        PokefaError: the libraries of the hash are not installed.
    """
    rows = images.filter(TAKEN_DOWN).select(KEY, "source_url", "phash64", "phash_contrast").rows()
    told = [image for record in read_records(root) for image in record.images]
    if not (rows or told):
        return None
    require_libraries()
    found = [(image_id, url, phash, contrast) for image_id, url, phash, contrast in rows]
    found += [(image[KEY], image.get("source_url"), image.get("phash"), image.get("phash_contrast")) for image in told]
    hashes = {
        (int(phash, 16), image_id)
        for image_id, _, phash, contrast in found
        if phash and not is_flat(Hash(phash, None if contrast is None else float(contrast)))
    }
    return TakenDown(
        frozenset(image_id for image_id, *_ in found),
        Addresses.of(url for _, url, *_ in found),
        tuple(sorted(hashes)),
        threshold,
    )


def look_alikes(images: pl.DataFrame, hashes: Iterable[Hash]) -> list[str]:
    """Return the images whose own hash is within THRESHOLD of one of `hashes`; plain images match nothing.

    Args:
        images: cell texts of image_id, phash64 and phash_contrast.
    """
    rows = images.filter(pl.col("phash64").str.contains("^[0-9a-fA-F]{16}$")).select(KEY, "phash64", "phash_contrast")
    wanted = {hashed.phash for hashed in hashes}
    if not len(rows) or not wanted:
        return []
    import numpy as np

    told = [
        (key, Hash(text, None if contrast is None else float(contrast))) for key, text, contrast in rows.iter_rows()
    ]
    told = [(image_id, hashed) for image_id, hashed in told if not is_flat(hashed)]
    own = np.array([int(hashed.phash, 16) for _, hashed in told], np.uint64)
    near = np.zeros(len(own), bool)
    for other in wanted:
        near |= np.bitwise_count(own ^ np.uint64(int(other, 16))) <= THRESHOLD
    return [told[place][0] for place in np.flatnonzero(near)]


def require_libraries() -> None:
    """Check that hashes can be computed, before anything depends on it.

    Raises:
        PokefaError: the libraries are not installed.
    """
    try:
        import imagehash  # noqa: F401
        import scipy  # noqa: F401
    except ImportError as error:
        raise PokefaError(
            f"images that were taken down are known again by a perceptual hash, which needs {error.name}: install "
            "this stage's requirements file again"
        ) from None
