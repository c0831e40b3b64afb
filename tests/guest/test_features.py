"""What this kernel lacks is what is listed, with reasons, as lacking."""

from __future__ import annotations

from lab.features import detect, listed_as_lacking


def test_what_is_lacking_is_listed_and_what_is_listed_is_lacking() -> None:
    """No feature is missing unlisted, and no reason outlives what it was given for."""
    lacking = {name for name, there in detect().items() if not there}
    listed = listed_as_lacking()
    assert lacking == set(listed)
    assert [name for name, reason in listed.items() if not reason] == []
