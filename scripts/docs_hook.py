"""What MkDocs calls while it builds the site: adds the pages made from the code (scripts/docs_site/).

mkdocs.yml names this file under `hooks`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from docs_site.api_page import PAGE as API
from docs_site.api_page import api_page
from docs_site.configuration_page import PAGE as CONFIGURATIONS
from docs_site.configuration_page import configuration_page
from docs_site.markdown import ROOT, copyable, link_pages
from docs_site.method_page import PAGE as METHODS
from docs_site.method_page import method_page
from docs_site.program_pages import page_of, program_page, programs_page
from docs_site.protocol_tables import fill
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from siamtransfer.cli.main import PROGRAMS

CHANGELOG = "changelog.md"
NUMBERS = "NUMBERS.md"
PROGRAM_LIST = "programs/index.md"
_MENTION = re.compile(
    r"(?<!<pre>)(?<!</span>)<code>siamtransfer ([a-z][a-z0-9-]*)(?=[ <])[^<]*</code>(?!</a>)"
)


def generated_pages() -> dict[str, Callable[[], str]]:
    """Path of a page below docs/ to the function that writes it."""
    programs = {page_of(name): lambda name=name: program_page(name) for name in PROGRAMS}
    return {
        PROGRAM_LIST: programs_page,
        **programs,
        METHODS: method_page,
        CONFIGURATIONS: configuration_page,
        API: api_page,
        CHANGELOG: changelog_page,
    }


def changelog_page() -> str:
    """CHANGELOG.md, with its links as they are below docs/."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    return link_pages(re.sub(r"\]\(docs/", "](", text), CHANGELOG)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Puts the pages of the programs into the navigation, where mkdocs.yml has their list."""
    config.nav = [_with_programs(entry) for entry in config.nav or []]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages."""
    for path, write in generated_pages().items():
        files.append(File.generated(config, path, content=write()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fills the tables that a page asks for by a comment, lets its blocks of commands be copied, and links
    the pages that the rows of NUMBERS.md name."""
    text = fill(copyable(markdown), page.file.src_uri)
    return link_pages(text, page.file.src_uri) if page.file.src_uri == NUMBERS else text


def on_page_content(html: str, page: Any, files: Files, **_: Any) -> str:
    """Makes the first mention of each program in a text (`siamtransfer knn CKPT`) a link to its page."""
    seen = {page.file.src_uri}

    def link(match: re.Match[str]) -> str:
        name = match[1]
        if name not in PROGRAMS or page_of(name) in seen:
            return match[0]
        seen.add(page_of(name))
        target = files.get_file_from_path(page_of(name))
        assert target is not None  # on_files has added it
        return f'<a href="{target.url_relative_to(page.file)}">{match[0]}</a>'

    return _MENTION.sub(link, html)


def _with_programs(entry: Any) -> Any:
    if isinstance(entry, dict) and PROGRAM_LIST in entry.values():
        (title,) = entry
        return {title: [PROGRAM_LIST, *({name: page_of(name)} for name in PROGRAMS)]}
    return entry
