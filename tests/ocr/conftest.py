"""Shared by the OCR tests: the real detector, loaded once, and the stand-in for LaMa's weights."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from demo.standins.inpaint_model import write_model
from preprocess.ocr.models import Detector, Reader, load_detector, load_reader
from preprocess.ocr.views import Looks


@pytest.fixture(scope="session")
def asked_network() -> list[str]:
    """What the network was asked for while the detector was loaded; `detector` fills it."""
    return []


@pytest.fixture(scope="session")
def detector(asked_network: list[str], tmp_path_factory: pytest.TempPathFactory) -> Detector:
    """The embedded detector, with every polygon that it would ever propose."""
    watching = True

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
            asked_network.append(f"{event} {arguments[-1]}")

    sys.addaudithook(watch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POKEFA_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("PADDLE_PDX_CACHE_HOME", raising=False)
        patch.delenv("PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK", raising=False)
        detect, label = load_detector(None, 0.0, Looks())
    watching = False
    assert label == "PP-OCRv6_small_det 090f04abcd9d"
    return detect


@pytest.fixture(scope="session")
def reader() -> Reader:
    """The embedded reader."""
    return load_reader()


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TorchScript model with the interface of big-lama.pt."""
    path = tmp_path_factory.mktemp("weights") / "stand-in.pt"
    write_model(path)
    return path
