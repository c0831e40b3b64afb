"""How long calls took, as text."""

from __future__ import annotations

from tests.factories import make_latency
from zpobs.views.latency import latency_lines

SECOND_NS = 10**9


def test_a_block() -> None:
    assert latency_lines("zram0", make_latency(), 17 * SECOND_NS) == [
        "zram0: latency, exact, for 12 s",
        "  CALL                                  COUNT     MEAN   HALF <    99% <   ALL <",
        "  zs_malloc                               498   1.66 s  16.4 us  16.4 us  longer",
        "    to the class lock, zspage there        96   384 ns   512 ns   512 ns  512 ns",
        "    to the class lock, zspage made        402  6.14 us  8.19 us  8.19 us 8.19 us",
        "  zs_malloc that failed                     1    24 ns    32 ns    32 ns   32 ns",
        "  zs_free                                  50   768 ns  1.02 us  1.02 us 1.02 us",
        "    to the class lock                      50   192 ns   256 ns   256 ns  256 ns",
        "  zs_page_migrate                           7  49.2 us  65.5 us  65.5 us 65.5 us",
        "  zs_page_migrate that failed               0",
    ]


def test_no_line_is_wider_than_a_plain_terminal() -> None:
    assert max(map(len, latency_lines("zram0", make_latency(), 17 * SECOND_NS))) <= 80


def test_what_is_less_than_exact_says_why() -> None:
    bounded = make_latency(status="bounded", reasons=("3 calls were seen without one of ..",))
    assert latency_lines("zram0", bounded, 17 * SECOND_NS)[:2] == [
        "zram0: latency, bounded, for 12 s",
        "  3 calls were seen without one of ..",
    ]
    unknown = make_latency(status="unknown", reasons=("no probes",), kinds={})
    assert latency_lines("zram0", unknown, 0) == ["zram0: latency unknown", "  no probes"]
