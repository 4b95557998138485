"""Counts the CLIP tokens of a caption, with CLIP's published vocabulary.

CLIP's text encoder lower-cases the text and splits it into contractions, runs of letters, single digits and runs of
other characters. Each of those is split by byte-pair encoding (Sennrich, Haddow and Birch 2016, "Neural Machine
Translation of Rare Words with Subword Units"; Radford et al. 2021, "Learning Transferable Visual Models From Natural
Language Supervision", section 2.4). One token starts the text and one ends it. The merges come from the file
bpe_simple_vocab_16e6.txt.gz in the wheel of clip-anytorch, and the library tokenizers applies them; PyTorch is not
needed. The counts equal those of the CLIP tokenizer in trainers that use transformers. CLIP's original implementation
also fixes mis-encoded text and HTML entities first, which never increases the count.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from pokefa.errors import PokefaError

CLIP_TOKENS = 77  # the limit of CLIP's text encoder, including the start and end tokens
BEGIN_AND_END = 2

VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
# CLIP's 49,408 tokens: 256 bytes, 256 bytes that end a word, one for each of the first merges, start and end.
MERGES = 49_408 - 2 * 256 - BEGIN_AND_END
WORD_END = "</w>"
PIECES = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
NOT_INSTALLED = (
    "CLIP's tokenizer is not installed: python -m pip install --no-deps -r requirements/requirements_caption_nodeps.txt"
)

TokenCounter = Callable[[str], int]


@lru_cache(maxsize=1)
def load_token_counter() -> TokenCounter:
    """Return the function that counts the tokens of a text, including start and end.

    Raises:
        PokefaError: the tokenizer or its vocabulary is not installed.
    """
    try:
        from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
    except ImportError:
        raise PokefaError(NOT_INSTALLED) from None
    merges = read_merges(find_vocabulary())
    marks = sorted(pre_tokenizers.ByteLevel.alphabet())  # a printable character for each of the 256 bytes
    pieces = [*marks, *(mark + WORD_END for mark in marks), *(first + second for first, second in merges)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, end_of_word_suffix=WORD_END))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return lambda text: BEGIN_AND_END + len(tokenizer.encode(text).ids)


def find_vocabulary() -> Path:
    """Return the file of merges in the installed clip-anytorch, without importing that package, which needs PyTorch.

    Raises:
        PokefaError: it is not installed.
    """
    try:
        places = [Path(str(file.locate())) for file in files("clip-anytorch") or [] if file.name == VOCABULARY]
    except PackageNotFoundError:
        places = []
    if not places or not places[0].is_file():
        raise PokefaError(NOT_INSTALLED)
    return places[0]


def read_merges(path: Path) -> list[tuple[str, str]]:
    """Return the pairs that byte-pair encoding merges, in learned order.

    Raises:
        PokefaError: the file is damaged or has the wrong content.
    """
    try:
        lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")[1 : MERGES + 1]
        merges = [(first, second) for first, second in (line.split(" ") for line in lines)]
    except (OSError, EOFError, ValueError, zlib.error):
        merges = []
    if len(merges) != MERGES:
        raise PokefaError(f"{path} is damaged: install the packages of requirements_caption_nodeps.txt anew")
    return merges
