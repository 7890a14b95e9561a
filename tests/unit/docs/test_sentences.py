"""The pages for readers keep their sentences short. Tables, code and generated pages are left out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
MAX_WORDS = 35
MAX_MEAN_WORDS = 20
ENOUGH_FOR_A_MEAN = 5  # sentences
GENERATED = {"configuration", "dead-letters", "features", "licences", "metrics", "topics"}
PAGES = sorted(
    page.relative_to(ROOT).as_posix()
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "examples/README.md"]
    if page.stem not in GENERATED
)
NOT_PROSE = re.compile(r"^```.*?^```|<!--.*?-->|^[ \t]*\|.*?$|^#.*?$", re.DOTALL | re.MULTILINE)
BLOCK_END = re.compile(r"\n\s*\n|\n(?=\s*(?:[*-]|\d+\.)\s)")
SENTENCE_END = re.compile(r"(?<=[.!?])[)*\"]*\s+(?=[*\"(\[`]*[A-Z0-9`*])")
LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")


def sentences(text: str) -> list[str]:
    prose = LINK.sub(r"\1", NOT_PROSE.sub("\n\n", text))
    return [sentence for block in BLOCK_END.split(prose) for sentence in SENTENCE_END.split(block) if words(sentence)]


def words(sentence: str) -> int:
    return sum(any(letter.isalnum() for letter in word) for word in sentence.split())


@pytest.mark.parametrize("page", PAGES)
def test_sentences_of_a_page_are_short(page: str) -> None:
    found = sentences((ROOT / page).read_text(encoding="utf-8"))
    lengths = [words(sentence) for sentence in found]
    too_long = [" ".join(sentence.split()) for sentence in found if words(sentence) > MAX_WORDS]
    assert too_long == [], f"{page}: split these sentences, each has more than {MAX_WORDS} words"
    mean = sum(lengths) / len(lengths)
    assert len(found) < ENOUGH_FOR_A_MEAN or mean <= MAX_MEAN_WORDS, (
        f"{page}: sentences have {mean:.1f} words on average, at most {MAX_MEAN_WORDS}"
    )


def test_sentences_are_counted_without_code_tables_headings_and_addresses() -> None:
    prose = "# A heading\n\nOne two. Three `four` [five](a/b.md)\nsix!\n\n* item one\n* item two\n"
    text = prose + "\n| a | b |\n```\ncode. Code.\n```\n<!-- a comment -->\n"
    assert [words(sentence) for sentence in sentences(text)] == [2, 4, 2, 2]
