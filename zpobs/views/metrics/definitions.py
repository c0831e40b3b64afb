"""The table of all metrics, and what holds of it as a whole.

A metric more is one entry in :mod:`own`, :mod:`pool`, :mod:`calls`, :mod:`objects` or
:mod:`classes` and the function that it names; docs/metrics.md is made of this table
(``python -m dashboards``).
"""

from __future__ import annotations

from zpobs.views.metrics.calls import CALL, CALL_BUCKETS, CALLS, FINE_BUCKETS
from zpobs.views.metrics.classes import CLASSES
from zpobs.views.metrics.metric import Metric
from zpobs.views.metrics.objects import OBJECTS
from zpobs.views.metrics.own import OWN
from zpobs.views.metrics.pool import POOL

METRICS: tuple[Metric, ...] = (*OWN, *POOL, *CALL, *OBJECTS, *CLASSES)
# No pool has more series than this without --per-class; a test counts.
POOL_SERIES_MAX = 150
# And with --latency-buckets fine so many beside, of each pool.
FINE_SERIES = len(CALLS) * (len(FINE_BUCKETS) - len(CALL_BUCKETS))
# And with --objects no more than so many beside.
OBJECT_SERIES_MAX = 40
