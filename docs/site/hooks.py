"""The README as the site's first page; links to files that are no pages as plain paths."""

import re
from pathlib import Path

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)")


def on_files(files: Files, config: dict) -> Files:
    """Add ``index.md``, made from the README, whose links start at the repository's root."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    page = readme.replace("](docs/", "](").replace("(configs/", "(../configs/")
    page = page.replace("(SECURITY.md", "(../SECURITY.md")
    files.append(File.generated(config, "index.md", content=page))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """A link to a file of the repository that is no page of the site becomes its text and path.

    Files that do not exist stay links, so that ``mkdocs build --strict`` refuses them.
    """

    def plain(match: re.Match) -> str:
        text, target = match.groups()
        outside = target.startswith("../") or target.startswith("results/")
        if not outside or not (ROOT / "docs" / target.split("#")[0]).exists():
            return match.group(0)
        path = target.removeprefix("../") if target.startswith("../") else f"docs/{target}"
        return text if text.strip("`") == path else f"{text} (`{path}`)"

    return LINK.sub(plain, markdown)
