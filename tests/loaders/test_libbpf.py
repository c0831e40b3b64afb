"""The binding to libbpf, as far as no kernel is needed."""

from __future__ import annotations

import signal

import pytest

from zpobs.loaders import libbpf


def test_an_interruption_waits_for_the_end_of_the_call() -> None:
    """SIGINT within is no exception there, where libbpf would lose it, but behind it."""
    reached = False
    # Whoever runs the tests in the background may have had it ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt), libbpf._undisturbed():
        signal.raise_signal(signal.SIGINT)
        reached = True
    assert reached
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler
