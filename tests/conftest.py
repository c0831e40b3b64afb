"""Which tests run where: in guests only those of tests/guest, outside all others."""

from __future__ import annotations

import os

from hypothesis import settings

# No test asserts a time: on a busy machine any example may take long.
settings.register_profile("usual", deadline=None)
settings.load_profile("usual")
# Twenty times as many examples of the model's properties: --hypothesis-profile=many
settings.register_profile("many", deadline=None, max_examples=2000)

IN_GUEST = os.environ.get("ZPOBS_GUEST") == "1"

collect_ignore_glob = [] if IN_GUEST else ["guest/*"]
