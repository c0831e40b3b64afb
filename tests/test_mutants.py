"""The mutants of the probes that the traps of ``tests/guest/test_traps.py`` are held against."""

from __future__ import annotations

import pytest

from tests import traps


@pytest.mark.parametrize("mutant", traps.MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_compiles(mutant: traps.Mutant) -> None:
    """What a mutation takes away is there, and the rest still compiles."""
    mutant.build()
