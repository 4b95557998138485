"""A small dataset with every fate that an image can have, made through the real core: StageRun, journals, files."""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from pokefa.files import sha256_of
from pokefa.ledger.tables import Ledger
from pokefa.setup.environments import CHECKOUT
from pokefa.setup.steps import STEPS
from pokefa.shards.layout import json_text
from pokefa.shards.pack import Packed
from pokefa.shards.publish import make_stats
from pokefa.stage.check_step import load_script
from pokefa.stage.options import CommandLine, Options, command_line
from pokefa.stage.runner import StageRun
from tests.conftest import Finished


@dataclass(frozen=True)
class Sample:
    """The dataset's root, and the image ids by the name that a test knows them by."""

    root: Path
    ids: dict[str, str] = field(default_factory=dict)

    def run(self, name: str, arguments: Sequence[str] = ()) -> Any:
        """Return a context manager that yields a StageRun of the stage and finishes it."""
        return stage_run(self.root, name, arguments)

    def copy_to(self, folder: Path) -> Sample:
        shutil.copytree(self.root, folder)
        return Sample(folder, self.ids)


def line_of(name: str, arguments: Sequence[str]) -> CommandLine:
    """Return what a step's script takes from a command line."""
    if STEPS[name].manual:
        return CommandLine()
    script = _load_script(CHECKOUT / STEPS[name].script)
    return command_line(script.build_parser().parse_args([*STEPS[name].subcommands[:1], *arguments]))


_load_script = cache(load_script)


@contextmanager
def stage_run(root: Path, name: str, arguments: Sequence[str] = ()) -> Any:
    run = StageRun(
        STEPS[name], Options(root=root, quiet=True), Ledger.open(root, create=True), line_of(name, arguments)
    )
    yield run
    run.finish()


# Name, species, colour; in the order in which they were found.
PICTURES = (
    ("good", "Gengar", (110, 60, 160)),
    ("text", "Eevee", (170, 120, 70)),
    ("nsfw", "Gengar", (255, 0, 255)),
    ("cleared", "Umbreon", (60, 60, 70)),
    ("copy", "Gengar", (110, 60, 160)),
    ("dull", "Pikachu", (230, 210, 60)),
    ("broken", "Pikachu", (0, 0, 0)),
    ("waiting", "Eevee", (180, 130, 90)),
    ("fakemon", "Umbreon", (30, 160, 90)),
)


def draw(name: str, colour: tuple[int, int, int]) -> bytes:
    image = Image.new("RGB", (300, 220 + 10 * len(name)), (240, 240, 235))
    pen = ImageDraw.Draw(image)
    pen.ellipse((60, 40, 240, 210), fill=colour)
    pen.text((8, 4), name, fill=(0, 0, 0))
    stream = io.BytesIO()
    image.save(stream, "PNG" if name == "text" else "JPEG")
    return stream.getvalue()[: 900 if name == "broken" else None]


def build(root: Path) -> Sample:
    """Run all stages on the pictures, as far as they come, without their models."""
    ids = save_pictures(root)
    screen(root, ids)
    find_text(root, ids)
    resize_and_score(root, ids)
    decide(root, ids)
    caption_and_split(root, ids)
    pack(root, ids)
    return Sample(root, ids)


def save_pictures(root: Path) -> dict[str, str]:
    ids = {}
    with stage_run(root, "scrape", ["--root", str(root)]) as run:
        for number, (name, species, colour) in enumerate(PICTURES, start=1):
            data = draw(name, colour)
            ids[name] = hashlib.md5(data).hexdigest()
            suffix = "png" if name == "text" else "jpg"
            path = root / "data_raw" / "001-150" / f"0001_{species.lower()}" / f"{ids[name]}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            host = "artist.example" if name in ("good", "copy") else "gallery.example"
            values = {
                "image_id": ids[name], "sha256": hashlib.sha256(data).hexdigest(), "species": species, "rank": 1,
                "band": "001-150", "source_url": f"https://cdn.{host}/{name}.{suffix}",
                "source_page": f"https://{host}/art/{number}", "source_domain": host,
                "title": f"{species} <b>fan art</b>",
                "path_raw": path.relative_to(root).as_posix(), "fmt": "PNG" if name == "text" else "JPEG",
                "w": 300, "h": 220 + 10 * len(name), "bytes": len(data), "ts": "2026-11-22T10:00:00.000Z",
            }  # fmt: skip
            run.record_row(values, reason="saved")
    return ids


def screen(root: Path, ids: dict[str, str]) -> None:
    with stage_run(root, "nsfw_filter") as run:
        for name, image_id in ids.items():
            if name == "broken":
                run.fail(image_id, "truncated: image file is truncated")
                continue
            flagged = name in ("nsfw", "cleared")
            score = {"nsfw": 0.97, "cleared": 0.55}.get(name, 0.02)
            values = {
                "is_nsfw": flagged, "nsfw_score": score, "nsfw_tags": json.dumps({"rating:explicit": score}),
                "nsfw_threshold": json.dumps({"rating:explicit": 0.5}), "nsfw_model": "deepdanbooru small 0123456789ab",
            }  # fmt: skip
            run.record(image_id, values, reason="flagged" if flagged else "clean", drop="nsfw" if flagged else None)
    with stage_run(root, "nsfw_unflag") as run:
        run.record(ids["cleared"], {"nsfw_override": "unflagged"}, reason="unflagged")
        run.note({"text": "a balloon", "image_ids": [ids["cleared"]]})


def clean(ids: dict[str, str]) -> dict[str, str]:
    return {name: image_id for name, image_id in ids.items() if name not in ("nsfw", "broken")}


def find_text(root: Path, ids: dict[str, str]) -> None:
    folder = root / "data_stage" / "OCR_inpainted"
    folder.mkdir(parents=True)
    with stage_run(root, "ocr_detect") as run:
        for name, image_id in clean(ids).items():
            values: dict[str, Any] = {"has_ocr": name == "text"}
            if name == "text":
                values |= {"ocr_area_frac": 0.04, "ocr_inpainted_path": f"data_stage/OCR_inpainted/{image_id}.png"}
                Image.new("RGB", (300, 260), (170, 120, 70)).save(folder / f"{image_id}.png")
            run.record(image_id, values, reason="text" if name == "text" else "no_text")


def resize_and_score(root: Path, ids: dict[str, str]) -> None:
    folder = root / "data_stage" / "resized"
    folder.mkdir(parents=True)
    with stage_run(root, "resize") as run:
        for name, image_id in clean(ids).items():
            (folder / f"{image_id}.jpg").write_bytes(draw(name, (90, 90, 90)))
            path = f"data_stage/resized/{image_id}.jpg"
            run.record(image_id, {"path_resized": path, "resized_w": 1024, "resized_h": 1200, "resize_action": "up"})
    with stage_run(root, "score") as run:
        for name, image_id in clean(ids).items():
            if name != "waiting":
                values = {"ae_relevance": 95, "ae_aesthetic": {"good": 90, "dull": 20}.get(name, 70)}
                run.record(image_id, {**values, "ae_model": "gpt-5-mini v1"}, reason="scored", durable=True)


def decide(root: Path, ids: dict[str, str]) -> None:
    with stage_run(root, "phash") as run:
        for name, image_id in clean(ids).items():
            run.record(image_id, {"phash64": f"{len(name):016x}"}, reason="hashed")
    with stage_run(root, "rm_dups") as run:
        for name, image_id in clean(ids).items():
            values: dict[str, Any] = {"dupe_flag": "unique", "dupe_removed": False}
            if name in ("good", "copy"):
                values = {"dupe_group": ids["good"], "dupe_rep_image": ids["good"], "dupe_distance": 0}
                values |= {"dupe_flag": "kept", "dupe_removed": False}
            if name == "copy":
                values |= {
                    "dupe_distance": 4,
                    "dupe_flag": "near",
                    "dupe_removed": True,
                    "dupe_keep_reason": "aesthetic",
                }
            run.record(image_id, values, reason=str(values["dupe_flag"]))
    decisions = {
        "nsfw": "nsfw", "copy": "duplicate", "dull": "below_aesthetic", "broken": "error", "waiting": "not_scored"
    }  # fmt: skip
    base = root / "data_clean" / "base"
    base.mkdir(parents=True)
    rows = []
    with stage_run(root, "filter", ["--min-aesthetic", "55"]) as run:
        for name, image_id in ids.items():
            decision = decisions.get(name, "kept")
            values = {"filter_decision": decision}
            if decision == "kept":
                values["filter_rank"] = len(rows) + 1
                path = f"data_clean/base/{image_id}.jpg"
                shutil.copyfile(root / f"data_stage/resized/{image_id}.jpg", root / path)
                rows.append({"path": path, "source_url": f"https://x/{name}", "image_id": image_id, "ae_relevance": 95})
            run.record(image_id, values, reason=decision)
        run.replace_rows("base", rows)


KEPT = ("good", "text", "cleared", "fakemon")
IN_SET = {"good": "train", "text": "train", "cleared": "val"}


def caption_and_split(root: Path, ids: dict[str, str]) -> None:
    with stage_run(root, "sentence_tags") as run:
        for name in KEPT:
            run.record(ids[name], {"caption": f"A drawing, {name}.", "tags": "{}"}, table="base", reason="captioned")
    with stage_run(root, "hybrid_captions") as run:
        for name in KEPT:
            run.record(ids[name], {"hybrid_caption": f"A drawing, {name}. | gengar"}, reason="written")
    with stage_run(root, "species") as run:
        for name in IN_SET:
            run.record(ids[name], {"species": "gengar"}, reason="named")
        run.record(ids["fakemon"], {"drop_reason": "species:no_known_species"}, drop="no_known_species", table="images")
    with stage_run(root, "split") as run:
        for name, split in IN_SET.items():
            run.record(ids[name], {"split": split}, reason=split)


def pack(root: Path, ids: dict[str, str]) -> None:
    """Write the shards and their manifests in the form of webdataset/webdataset.py."""
    data, manifests = root / "webdataset" / "data", root / "webdataset" / "manifests"
    data.mkdir(parents=True)
    manifests.mkdir()
    shards, lists = {}, {}
    for split in ("train", "val"):
        chosen = sorted(ids[name] for name in IN_SET if IN_SET[name] == split)
        lists[split] = "".join(f"{image_id}\n" for image_id in chosen)
        (manifests / f"{split}_ids.txt").write_text(lists[split])
        shard = data / f"{split}-00000.tar"
        with tarfile.open(shard, "w") as tar:
            for image_id in chosen:
                tar.add(root / f"data_clean/base/{image_id}.jpg", f"{image_id}.jpg")
                for extension, text in (("txt", "A drawing."), ("json", "{}")):
                    member = tarfile.TarInfo(f"{image_id}.{extension}")
                    member.size = len(text)
                    tar.addfile(member, io.BytesIO(text.encode()))
        shards[shard.name] = vars(Packed(split, split, sha256_of(shard), shard.stat().st_size, len(chosen)))
    stats = make_stats(shards, [], {}, {"image_format": "keep"}, lists)
    (manifests / "split_stats.json").write_text(json_text(stats))


@pytest.fixture(scope="session")
def finished_sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return build(tmp_path_factory.mktemp("sample") / "dataset")


@pytest.fixture
def sample(finished_sample: Sample, tmp_path: Path) -> Sample:
    """The dataset, for the test to change."""
    return finished_sample.copy_to(tmp_path / "dataset")


@pytest.fixture
def ask(run_script: Callable[..., Any], sample: Sample) -> Callable[..., Any]:
    """Run a script of metadata/ on the sample: `ask("status", "--json")`."""
    return lambda script, *arguments: run_script(f"metadata/{script}.py", "--root", sample.root, *arguments)


@pytest.fixture
def ask_here(sample: Sample, capsys: pytest.CaptureFixture[str]) -> Callable[..., Finished]:
    """Run a script of metadata/ on the sample in this process, which spares the start of another one."""

    def run(script: str, *arguments: object) -> Finished:
        capsys.readouterr()
        try:
            code = importlib.import_module(f"metadata.{script}").main(
                ["--root", str(sample.root), *map(str, arguments)]
            )
        except SystemExit as ended:  # argparse
            code = int(ended.code or 0)
        told = capsys.readouterr()
        lines = told.out.strip().splitlines()
        summary = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
        return Finished(code, summary, told.out, told.err)

    return run
