"""The page that is served now: put there by one thread, taken by all others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from zpobs.views.metrics.families import down_families
from zpobs.views.metrics.pages import Page

# A page is not fresh any more so long after its time at most.
_TICK_S = 0.01


class Board:
    """What is told now, by whatever way; a page that is older than ``fresh_s`` is none any more.

    ``note`` is a sentence for whoever asks for health, beside whether there is a fresh page.
    """

    def __init__(self, fresh_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._fresh_s = fresh_s
        self._clock = clock
        self._page: Page | None = None
        self._down = Page(down_families(), 0.0)
        self._changed = threading.Condition()
        self._ended = False
        self.note = ""

    def put(self, page: Page) -> None:
        """Serve this page from now on."""
        with self._changed:
            self._page = page
            self._changed.notify_all()

    def end(self) -> None:
        """Have those who wait for another page wait no more."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def ended(self) -> bool:
        """Whether nobody is to wait for another page."""
        return self._ended

    @property
    def fresh(self) -> bool:
        """Whether there is a page that is young enough."""
        return self.page is not self._down

    @property
    def page(self) -> Page:
        """The page, or the one that says that there is none."""
        page = self._page
        if page is None or self._left_s(page) < 0:
            return self._down
        return page

    def other_than(self, page: Page | None, again_s: float | None = None) -> Page | None:
        """Return the page once it is another one, that there is none any more among them.

        None if it is not yet: waits are cut short. With ``again_s`` the page is returned after
        so long at most, and not before unless one is put.
        """
        with self._changed:
            if not self._ended and (self.page is page or again_s is not None):
                waits = [] if again_s is None else [again_s]
                if self._page is not None and self.fresh:
                    waits.append(max(self._left_s(self._page), _TICK_S))
                self._changed.wait(min(waits, default=None))
            found = self.page
            return None if found is page else found

    def _left_s(self, page: Page) -> float:
        return self._fresh_s - (self._clock() - page.made_s)
