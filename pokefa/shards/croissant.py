"""The set's machine-readable description: webdataset/croissant.json, in MLCommons' Croissant 1.1.

The vocabulary is http://mlcommons.org/croissant/1.1. Paths are relative to the file, so that the folder can be moved.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pokefa.errors import InputError
from pokefa.shards.card import FACTS
from pokefa.shards.layout import IMAGE_SUFFIXES

CROISSANT = "webdataset/croissant.json"
CONFORMS_TO = "http://mlcommons.org/croissant/1.1"

# The terms that a document of this version uses without a prefix, according to the specification.
_CROISSANT_TERMS = (
    "arrayShape citeAs column containedIn extract field fileProperty fileObject fileSet format includes isArray "
    "isLiveDataset jsonPath key md5 parentField path recordSet references regex repeated replace samplingRate "
    "separator source subField transform equivalentProperty"
)
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in _CROISSANT_TERMS.split()},
}


@dataclass(frozen=True)
class Kind:
    """One kind of file in the shards, and its record set.

    Each kind has its own record set, because mlcroissant 1.1 cannot join three kinds of files from archives.
    """

    name: str
    files: str
    patterns: tuple[str, ...]
    formats: tuple[str, ...]
    content: str
    data_type: str
    meaning: str


KINDS = (
    Kind(
        "images",
        "image-files",
        tuple(f"*.{suffix}" for suffix in IMAGE_SUFFIXES),
        ("image/jpeg", "image/png", "image/webp"),
        "image",
        "sc:ImageObject",
        "the image",
    ),
    Kind("captions", "caption-files", ("*.txt",), ("text/plain",), "caption", "sc:Text", "a sentence, a bar, and tags"),
    Kind(
        "facts",
        "fact-files",
        ("*.json",),
        ("application/json",),
        "facts",
        "sc:Text",
        f"a JSON object: {', '.join((*FACTS, 'species_list', 'tags'))}",
    ),
)


@dataclass(frozen=True)
class Publication:
    """What a publisher states about the set in addition to its contents.

    Args:
        license: an identifier of Hugging Face's list; `other` if the artists keep their rights.
        date: of publication, as 2026-11-22.
    """

    title: str
    license: str
    contact: str
    url: str
    version: str
    date: str
    creator: str


def make_croissant(about: Publication, stats: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document for the shards in split_stats.json."""
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": about.title,
        "url": about.url,
        "license": about.license,
        "version": about.version,
        "datePublished": about.date,
        "creator": {"@type": "sc:Organization", "name": about.creator},
        "citeAs": f"{about.creator}: {about.title}, version {about.version}, {about.date[:4]}, {about.url}",
        "keywords": ["Pokémon", "fan art", "text-to-image", "webdataset"],
        "inLanguage": "en",
    } | describe_shards(stats)


def refresh_croissant(root: Path, stats: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document with the parts that follow from the shards renewed.

    Raises:
        InputError: it is damaged.
    """
    try:
        document = dict(json.loads((root / CROISSANT).read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise InputError(f"{CROISSANT} is damaged ({error!r}): remove it, and run webdataset/card.py again") from None
    return document | describe_shards(stats)


def describe_shards(stats: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document's part about the shards."""
    counts = "{train} images to train on, {val} to validate with".format(**stats["samples"])
    return {
        "description": f"Captioned Pokémon fan art: {counts}.",
        "distribution": list(distribution(stats["shards"])),
        "recordSet": [records(kind) for kind in KINDS] if stats["shards"] else [],
    }


def distribution(shards: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the shards, and the files inside them by kind."""
    names = sorted(shards)
    for name in names:
        yield {
            "@type": "cr:FileObject",
            "@id": name,
            "name": name,
            "contentUrl": f"data/{name}",
            "contentSize": f"{shards[name]['bytes']} B",
            "encodingFormat": "application/x-tar",
            "sha256": shards[name]["sha256"],
        }
    for kind in KINDS if names else ():
        yield {
            "@type": "cr:FileSet",
            "@id": kind.files,
            "name": kind.files,
            "containedIn": [{"@id": name} for name in names],
            "encodingFormat": list(kind.formats),
            "includes": list(kind.patterns),
        }


def records(kind: Kind) -> dict[str, Any]:
    """Return the record set of one kind of file: the name, which is the image_id, and the content."""
    name = {"extract": {"fileProperty": "filename"}, "transform": {"regex": r"^([^.]+)\..+$"}}
    content = {"extract": {"fileProperty": "content"}}
    return {
        "@type": "cr:RecordSet",
        "@id": kind.name,
        "name": kind.name,
        "description": kind.meaning,
        "key": {"@id": f"{kind.name}/image_id"},
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"{kind.name}/{field}",
                "name": field,
                "description": meaning,
                "dataType": data_type,
                "source": {"fileSet": {"@id": kind.files}, **source},
            }
            for field, meaning, data_type, source in (
                ("image_id", "MD5 of the bytes that were downloaded; the key of the sample", "sc:Text", name),
                (kind.content, kind.meaning, kind.data_type, content),
            )
        ],
    }
