"""The nearest known name, or all of them."""

from __future__ import annotations

import doctest

from rave_dist import suggest


def test_the_examples_hold() -> None:
    done = doctest.testmod(suggest)
    assert done.attempted
    assert not done.failed


def test_without_known_names_there_is_no_fix() -> None:
    assert suggest.suggest("drums", []) == ""
