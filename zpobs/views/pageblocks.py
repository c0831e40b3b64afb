"""In which pageblocks pages lie, as plain text."""

from __future__ import annotations

from zpobs.pageblocks import FILLS, Pageblocks
from zpobs.views.figures import UNKNOWN


def pageblock_lines(name: str, blocks: Pageblocks) -> list[str]:
    """Return the block of one pool, or of all."""
    size = 1 << blocks.order
    lines = [
        f"{name}: {blocks.pages:,} pages in {len(blocks.table.number):,} pageblocks"
        f" of {size:,} pages"
    ]
    if blocks.unplaced:
        lines.append(f"  {blocks.unplaced:,} more pages, of frames that are not known")
    if blocks.why_unknown:
        lines.append(f"  of unknown migratetype: {blocks.why_unknown}")
    if not len(blocks.table.number):
        return lines
    lines.append(f"  {'MIGRATETYPE':<14}{'BLOCKS':>9}{'PAGES':>11}{'OF THEIR PAGES':>16}")
    for kind, (count, pages) in blocks.by_type().items():
        share = f"{100 * pages / (count * size):.1f}%"
        lines.append(f"  {kind:<14}{count:>9,}{pages:>11,}{share:>16}")
    fill = " ".join(f"{count:>7,}" for count in blocks.fill().tolist())
    heads = " ".join(f"<={eighth}/{FILLS}".rjust(7) for eighth in range(1, FILLS + 1))
    return [*lines, f"  full by        {heads}", f"  blocks         {fill}", *_made(blocks)]


def _made(blocks: Pageblocks) -> list[str]:
    made = blocks.made_unmovable()
    if made is None:
        return [f"  made unmovable: {UNKNOWN}, as migratetypes are"]
    count, pages = made
    why = (
        "by pages locked or isolated as they were scanned; this kernel migrates others"
        if blocks.movable
        else "this kernel cannot migrate zsmalloc's pages"
    )
    return [f"  made unmovable: {count:,} movable blocks with {pages:,} pages", f"    {why}"]
