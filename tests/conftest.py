"""Which tests run where: in guests only those of tests/guest, outside all others."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# No test asserts a time: on a busy machine any example may take long.
settings.register_profile("usual", deadline=None)
settings.load_profile("usual")
# Twenty times as many examples of the model's properties: --hypothesis-profile=many
settings.register_profile("many", deadline=None, max_examples=2000)

IN_GUEST = os.environ.get("ZPOBS_GUEST") == "1"

# The whole folder outside guests: its conftest asks the kernel.
collect_ignore = [] if IN_GUEST else ["guest"]

if not IN_GUEST:
    from tests.guest_runs import Guests

    GUESTS = pytest.StashKey[Guests]()

    def _run_of(item: pytest.Item) -> str | None:
        """Return the name of the guest's run that a test waits for, None if it is another test."""
        return item.callspec.params["name"] if item.name.startswith("test_in_a_guest[") else None

    def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
        """Have the tests that wait for guests last: meanwhile these run."""
        items.sort(key=lambda item: _run_of(item) is not None)

    def pytest_collection_finish(session: pytest.Session) -> None:
        """Begin the guests of all tests that wait for one."""
        wanted = [name for name in map(_run_of, session.items) if name is not None]
        if wanted and not session.config.option.collectonly:
            session.config.stash[GUESTS] = Guests(wanted)

    def pytest_unconfigure(config: pytest.Config) -> None:
        """Begin no further guest."""
        if GUESTS in config.stash:
            config.stash[GUESTS].end()

    @pytest.fixture(scope="session")
    def guests(pytestconfig: pytest.Config) -> Guests:
        """Return the guests that run beside the tests."""
        return pytestconfig.stash[GUESTS]
