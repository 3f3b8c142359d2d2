"""The project's English: plain technical terms, British spelling, one summary line per docstring (ruff holds that)."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

# What is not written here, and what is written instead.
INSTEAD = {
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\bbesides?\b": "next to, with, in addition to",
    r"\b(go|goes|going|went) on\b": "continue, resume, proceed",
    r"\b(is|are|was) no numbers?\b": "NaN or infinite",
    r"\bby heart\b": "overfits",
    r"\bfor tries\b": "for quick experiments",
    r"\b(cannot|can not|could not) be had\b": "requires, is not supported, is not available",
    r"\b(a|the) text (is|was) (needed|missing)\b": "must be a string",
    r"\bso (many|much of)\b": "a number of, the given, a factor",
    r"\b(noise|twice|half) as loud\b": "of the same loudness, 6 dB louder",
    r"\bthat which\b": "the noun that is meant",
    r"\bof what\b": "the noun that is meant",
    r"\b(go|goes) (together|with)\b": "can be combined, is used with",
    r"\bown word\b": "values set on it override",
    r"\bfor ever\b": "forever, without end",
    r"\banew\b": "again",
    r"\bhears?\b": "takes as input, receptive field",
    r"\bunforeseen\b": "internal, unexpected",
    r"\bone after the other\b": "in turn, sequentially",
    r"\btakes? up where\b": "resumes",
    r"\btruth values?\b": "boolean",
    r"\b(told|heard)\b": "reports, receives, processed",
    r"\bfor it (is|has|was|may)\b": "because",
    r"\bwhoever\b": "everyone who, the caller",
    r"\bsomebody\b": "the noun that is meant",
    r"\b(by itself|of its own accord)\b": "automatically, separately",
    r"\bin a (process|thread|folder) of (its|their) own\b": "in a separate process",
    r"\b(is|are) to be (thanked|done|had|found)\b": "attribution, must be",
    r"\bshall\b": "must",
    r"\bwithout a word\b": "without an error",
    r"\bone another\b": "each other",
    r"\b(at|to) its word\b": "as given",
    r"\b(what|where) (becomes|became) of\b": "the outcome",
    r"\b(lie|lies|lay|stand|stands) in the store\b": "is in the store",
    r"\bno more special\b": "plain",
    r"\bsave[sd]? (itself|themselves)\b": "save its state",
    r"\bthe one door\b": "all access to",
    r"\bmade from equations\b": "synthesised",
    r"\b(cut short|half-written)\b": "truncated, incomplete",
    r"\b(gone silent|goes silent)\b": "no longer responds",
    r"\b(behavior|favorite|honor|neighbor(s|ing)?|modeling|modeled|labeled|analyzed?)\b": "British spelling",
    r"\b(synthesized?|recognized?|emphasized?|summarized?|organized?)\b": "British spelling",
}
ROOT = Path(__file__).resolve().parents[2]


def _prose() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    kinds = {".md", ".py", ".html", ".yaml", ".toml", ""}
    left_out = {ROOT / "LICENSE", ROOT / "NOTICE", Path(__file__)}
    return [p for p in paths if p.suffix in kinds and p not in left_out and p.is_file() and "tests" not in p.parts]


@pytest.mark.parametrize("phrase", INSTEAD, ids=lambda phrase: re.sub(r"[^a-z ]", "", phrase)[:24])
def test_the_fields_terms_are_used(phrase: str) -> None:
    pattern = re.compile(phrase, re.IGNORECASE)
    found = []
    for path in _prose():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if pattern.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert found == [], f"write instead: {INSTEAD[phrase]}"
