"""``app.py`` of a hosted page: the demo with the embedded models, or with those that CAPTIONER and REASONER name.

Copy it as ``app.py`` beside a ``requirements.txt`` that says ``racro-pl[demo]``. The host's own front end decides who
may see the page; it listens on all addresses of its container.
"""

from __future__ import annotations

import os

from racro_pl.demo import Demo
from racro_pl.evaluation.settings import SamplingSettings, open_reasoner
from racro_pl.pipeline import EMBEDDED_CAPTIONER, EMBEDDED_REASONER, Pipeline

MAX_TOKENS = 512


def main() -> None:
    captioner = os.environ.get("CAPTIONER", EMBEDDED_CAPTIONER)
    reasoner = os.environ.get("REASONER", EMBEDDED_REASONER)
    demo = Demo(
        {captioner: Pipeline(captioner, max_tokens=MAX_TOKENS)},
        {reasoner: open_reasoner(reasoner, SamplingSettings(max_tokens=MAX_TOKENS))},
    )
    demo.launch("0.0.0.0", int(os.environ.get("PORT", "7860")))


if __name__ == "__main__":
    main()
