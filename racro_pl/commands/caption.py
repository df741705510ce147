"""``racro-pl caption FOLDER|FILE.jsonl``: a caption for every picture, as a data set or as files beside them."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path

from racro_pl.commands.quiet import quiet_libraries
from racro_pl.commands.suggestions import CommandParser
from racro_pl.terminal import Console
from racro_pl.types import RacroError

SIDECARS = "sidecars"
NOTE = ".racro.json"
"""What wrote the captions: after the name of a caption file, and for sidecars after "captions" in their folder."""
TOLD = 20
"""Pictures without a caption that are named; further ones are counted."""


def main(arguments: list[str]) -> int:
    """Run ``caption``; returns the exit code: 1 when a picture has no caption."""
    options = _parse(arguments)
    quiet_libraries()
    from racro_pl.commands.ask import default_captioner
    from racro_pl.data.sampling import in_order, place_of
    from racro_pl.evaluation.captioner_module import CaptionerModule, batch_size_for, open_trainer, predict
    from racro_pl.evaluation.captioner_source import identity
    from racro_pl.evaluation.captioning import (
        CaptionFile,
        PictureCaptions,
        Sidecars,
        caption_files,
        claim,
        pictures_of,
        sidecar,
    )  # fmt: skip
    from racro_pl.evaluation.settings import CaptionerSettings
    from racro_pl.training.distributed import disconnect_at_exit, join_ranks

    pictures = pictures_of(options.source, options.question)
    captioner = options.captioner or default_captioner()
    settings = CaptionerSettings(
        captioner, "captioner", max_new_tokens=options.max_tokens, batch_size=options.batch_size, model=options.model
    )
    trainer = open_trainer(options.accelerator, options.devices, options.num_nodes)
    console = Console(stderr=True, quiet=not trainer.is_global_zero)
    console.say(f"{len(pictures)} pictures; captioner: {captioner}")
    rank, ranks = place_of(trainer)
    made_by = json.loads(identity(settings, trainer.strategy.root_device.type != "cpu"))
    output: CaptionFile | Sidecars
    if options.output == SIDECARS:
        output = Sidecars(pictures)
        folder = options.source if options.source.is_dir() else options.source.parent
        existing = [sidecar(picture) for picture in pictures if output.has(picture)]
        claim(folder / f"captions{NOTE}", existing, made_by | {"question": options.question})
    else:
        path = Path(options.output)
        claim(path.with_suffix(NOTE), caption_files(path), made_by)
        output = CaptionFile(path, rank)
    there = sum(output.has(picture) for picture in pictures)
    if there:
        console.say(f"{there} captions are there already")
    job = PictureCaptions(pictures[rank::ranks], output, _teller(console))

    def begin() -> PictureCaptions:
        disconnect_at_exit(trainer)
        return job

    with closing(output):
        loader = in_order(pictures, batch_size_for(settings), (rank, ranks))
        predict(trainer, CaptionerModule(settings, begin), loader)
    trainer.strategy.barrier("captions of all ranks")
    problems = sum(join_ranks([job.problems]), Counter())
    if not trainer.is_global_zero:
        return 0  # a launcher ends all processes when one of them fails, and the first still has work to do
    output.merge(pictures)
    return _conclude(console, pictures, problems, options.output)


def _teller(console: Console) -> Callable[[str], None]:
    """Tells the first few pictures without a caption."""
    told = count()

    def tell(text: str) -> None:
        if next(told) < TOLD:
            console.say(text)

    return tell


def _conclude(console: Console, pictures: list, problems: Counter[str], output: str) -> int:
    missing = sum(problems.values())
    reasons = ", ".join(f"{count}x {reason}" for reason, count in problems.most_common())
    console.say(f"{len(pictures) - missing} of {len(pictures)} captions are in {output}")
    if missing:
        console.say(f"{missing} pictures have none: {reasons}; the same command tries them again")
    return 1 if missing else 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = CommandParser(
        prog="racro-pl caption", usage="racro-pl caption FOLDER|FILE.jsonl [options]", description=__doc__
    )
    parser.add_argument("source", type=Path, metavar="FOLDER|FILE.jsonl", help="pictures, or rows with an image each")
    parser.add_argument(
        "--question", default="Describe the image.", help="what captions are for (default: %(default)s)"
    )
    parser.add_argument("--output", default="captions.jsonl", help=f"a .jsonl file, or {SIDECARS}: a .txt beside each")
    parser.add_argument("--captioner", metavar="PATH", help="run, adapter, model or URL (default: as `ask`)")
    parser.add_argument("--model", help="the captioner's served name, with a URL that serves several")
    parser.add_argument("--max_tokens", type=int, default=1024, help="of a caption (default: %(default)s)")
    parser.add_argument("--batch_size", type=int, default=16, help="captions written together (default: %(default)s)")
    parser.add_argument("--accelerator", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--devices", default="auto", help="number of processes; auto: one per GPU")
    parser.add_argument("--num_nodes", type=int, default=1, help="machines, as for torchrun or SLURM")
    options = parser.parse_args(arguments)
    if options.output != SIDECARS and not options.output.endswith(".jsonl"):
        raise RacroError(f"--output is {options.output!r}; expected a .jsonl file, or {SIDECARS}")
    if options.source.is_file() and Path(options.output).absolute() == options.source.absolute():
        raise RacroError(f"--output is {options.output!r}, the list of pictures itself; name another file")
    for name in ("max_tokens", "batch_size", "num_nodes"):
        if getattr(options, name) < 1:
            raise RacroError(f"--{name} is {getattr(options, name)}; expected 1 or more")
    return options
