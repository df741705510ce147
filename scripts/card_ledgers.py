"""Write into every configuration of configs/cards the memory ledger that it was sized by.

    python scripts/card_ledgers.py            # rewrite the comment blocks
    python scripts/card_ledgers.py --check    # exit 1 where a block is not what its settings give

Needs no GPU, no network and no weights. A card's size stands in its file's name; where a reasoner shares the card,
its share is what the command in the file's head gives it (--gpu-memory-utilization).
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from racro_pl.commands.lightning import parts_of
from racro_pl.policy.memory.ledger import GIB, OVERHEAD
from racro_pl.training.memory import plan_of

CARDS = Path(__file__).parents[1] / "configs" / "cards"
FIRST = "# Memory by `python scripts/card_ledgers.py`: computed, not measured on such a card."
_BLOCK = re.compile(rf"^{re.escape(FIRST)}\n(?:#.*\n)*", re.MULTILINE)
_SHARE = re.compile(r"--gpu-memory-utilization (0\.\d+)")


def block(path: Path) -> str:
    """The comment block of a card's configuration, from its settings."""
    card = float(path.name.split("gb_")[0])
    plan = plan_of(*parts_of(str(path)))
    rows = [*plan.lines(), f"{'context, fragmentation (a guess)':<34}{OVERHEAD / GIB:7.2f} *"]
    total = (plan.ledger.peak + OVERHEAD) / GIB
    share = _SHARE.search(path.read_text(encoding="utf-8"))
    if share:
        rows.append(f"{f'the reasoner, {share[1]} of the card':<34}{float(share[1]) * card:7.2f} *")
        total += float(share[1]) * card
    if total > card:
        raise ValueError(f"{path.name}: {total:.2f} GiB do not fit into {card:g}")
    rows.append(f"{f'in all, of {card:g}':<34}{total:7.2f}")
    return "\n".join([FIRST, *(f"#   {row}" for row in rows)]) + "\n"


def with_block(path: Path) -> str:
    """A configuration's text with its block as it should be: before ``name:``, or where it is already."""
    text, new = path.read_text(encoding="utf-8"), block(path)
    if _BLOCK.search(text):
        return _BLOCK.sub(lambda _: new, text, count=1)
    return text.replace("#\nname:", f"{new}name:", 1)


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    stale = [path for path in sorted(CARDS.glob("*.yaml")) if with_block(path) != path.read_text(encoding="utf-8")]
    for path in stale:
        print(f"{path.name}: " + ("not what its settings give" if options.check else "written"))
        if not options.check:
            path.write_text(with_block(path), encoding="utf-8")
    return 1 if stale and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
