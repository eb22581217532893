"""The pages of the documentation that are made from the code: nothing is missing, all is as the code says."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from docs_site.api_page import api_page, public_names
from docs_site.configuration_page import configuration_page
from docs_site.markdown import DOCS, copyable, docstring, escape, link_pages, prose
from docs_site.method_page import method_page
from docs_site.program_pages import doors, page_of, program_page, programs_page
from docs_site.protocol_tables import fill, linear_table, semisup_table
from markdown import markdown
from support.paths import ROOT

import siamtransfer
from siamtransfer.cli.main import PROGRAMS, program
from siamtransfer.cli.shipped import shipped_configs
from siamtransfer.methods.registry import METHODS


def cells(page: str) -> list[list[str]]:
    """The rows of all tables of a page as plain text."""
    html = markdown(page, extensions=["tables", "attr_list"])
    rows = re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)
    return [[re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<td.*?>(.*?)</td>", row)] for row in rows]


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_s_page_has_every_option_once(name: str) -> None:
    page = program_page(name)
    typed = [row[0].split()[0] for row in cells(page) if row]
    wanted = set()
    for option in program(name).described()[0]:
        section, _, last = option.key.rpartition(".")
        off = "--" + ".".join(filter(None, [section, f"no_{last}"])).replace("_", "-")
        wanted.add(option.key.upper() if option.positional else off if off in typed else option.flag)
    assert set(typed) == wanted
    assert len(typed) == len(wanted)


def test_a_page_shows_defaults_choices_and_examples() -> None:
    page = program_page("knn")
    rows = {row[0]: row[1:] for row in cells(page) if row}
    assert rows["--k INT ..."][0] == "10 20 100 200"
    assert rows["--k INT ..."][1].startswith("Numbers of neighbours")
    assert rows["--metric cosine|euclidean"][0] == "cosine"
    lines = page.splitlines()
    example = "siamtransfer knn torchvision:resnet50 --data.name cifar10 --data.root data"
    assert lines[lines.index(example) - 1] == "# a supervised baseline"
    assert "python eval/knn.py" in page


def test_the_defaults_of_pretrain_are_those_of_the_configuration_that_it_reads() -> None:
    command = program("pretrain")
    assert command.default_config is not None
    tree = yaml.safe_load(shipped_configs()[f"pretrain/{command.default_config}"].read_text())
    rows = {row[0].split()[0]: row[1:] for row in cells(program_page("pretrain")) if row}
    assert rows["--optim.epochs"][0] == str(tree["optim"]["epochs"])


def test_a_switch_that_is_on_is_said_to_be() -> None:
    rows = {row[0]: row[1] for row in cells(program_page("report")) if row}
    assert rows["--no-maps"] == rows["--no-index"] == "on; this turns it off"
    assert {row[0]: row[1] for row in cells(program_page("suite")) if row}["--dry-run"] == "false"


def test_the_list_of_programs_has_all_of_them_and_their_files() -> None:
    listed = {row[0]: row[2] for row in cells(programs_page()) if row}
    assert list(listed) == list(PROGRAMS)
    assert listed["to-d2"] == "convert/to_d2.py" and listed["launch"] == ""
    assert all((ROOT / file).is_file() for file in doors().values())


def test_the_overview_has_every_program_and_the_file_that_runs_it() -> None:
    overview = (DOCS / "OVERVIEW.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| `siamtransfer ([a-z0-9-]+)[^`]*` \| (?:`([\w/]+\.py)`)? ?\| \S", overview, re.MULTILINE
    )
    assert {name: file for name, file in rows if name != "configs"} == {
        name: doors().get(name, "") for name in PROGRAMS
    }


def test_the_page_of_methods_has_all_of_them_with_their_options() -> None:
    page = method_page()
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == list(METHODS)
    typed = {row[0].split()[0] for row in cells(page) if row}
    assert {"--simclr.temperature", "--swav.prototypes"} <= typed
    assert "[arXiv 2011.10566](https://arxiv.org/abs/2011.10566)" in page


def test_every_shipped_configuration_is_listed_with_what_it_is() -> None:
    rows = [row for row in cells(configuration_page()) if row]
    assert len(rows) == len(shipped_configs())
    assert all(len(what) > 10 for _, what in rows)


def test_every_public_name_is_in_the_reference() -> None:
    directives = re.findall(r"^::: (\S+)$", api_page(), re.MULTILINE)
    assert sorted(name.rpartition(".")[2] for name in directives) == sorted(public_names())
    assert {*public_names(), "__version__"} == set(siamtransfer.__all__)


@pytest.mark.parametrize("name", [name for name in public_names() if name[0].islower()])
def test_the_reference_names_arguments_that_there_are(name: str) -> None:
    """The build of the site refuses others; a line `a, b: what` is one of them."""
    function = getattr(siamtransfer, name)
    section = re.search(
        r"\n(?:Args|Arguments):\n((?: {4}.*\n?|\n)*)", (inspect.getdoc(function) or "") + "\n"
    )
    named = re.findall(r"^ {4}(\S[^:\n]*):", section[1], re.MULTILINE) if section else []
    assert {argument.lstrip("*") for argument in named} <= set(inspect.signature(function).parameters)


def test_the_tables_of_protocols_state_published_settings() -> None:
    """Those in the READMEs: MoCo's --lr 30.0 --schedule 60 80, SwAV's --lr 0.02 --lr_last_layer 5 for 1 %."""
    linear = {row[0]: row[1:] for row in cells(linear_table("PROTOCOLS.md")) if row}
    assert linear["moco"][:6] == ["SGD", "30", "0", "256", "100", "× 0.1 at 60, 80"]
    assert linear["moco-v3"][1] == "0.1 (ViTs 3)"
    semisup = [row for row in cells(semisup_table("PROTOCOLS.md")) if row]
    assert ["swav", "1 %", "0.02", "5", "256", "20", "0", "× 0.2 at 12, 16"] in [row[:8] for row in semisup]


@pytest.mark.parametrize(
    "request_",
    [
        "table: nothing",
        "settings: knn no_such_option",
        "settings: nothing k",
        "setting: knn k",
        "table:linear",
    ],
)
def test_a_table_that_there_is_not_stops_the_build(request_: str) -> None:
    with pytest.raises(ValueError, match=rf"PROTOCOLS.md: <!-- {request_} -->"):
        fill(f"<!-- {request_} -->", "PROTOCOLS.md")


def test_requests_on_pages_are_filled_and_other_comments_stay() -> None:
    text = fill("a\n<!-- settings: knn k -->\n<!-- test: only read: b -->", "PROTOCOLS.md")
    assert "`--k INT ...`{ #knn-k }" in text
    assert text.endswith("<!-- test: only read: b -->")


@pytest.mark.parametrize(
    "text", ["a_b_c *d* [e](f) <g> h|i {j} \\k", "x[N, 3] -> h[N, dim] & more", "`code_*` and *stars*"]
)
def test_escaped_text_reads_as_it_was(text: str) -> None:
    html = markdown(f"| head |\n| --- |\n| {escape(text)} |\n", extensions=["tables", "attr_list"])
    (cell,) = re.findall(r"<td>(.*)</td>", html)
    plain = re.sub(r"</?code>", "`", cell).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    assert plain == text


def test_pages_and_papers_become_links_where_they_exist() -> None:
    assert prose("see docs/DETECTION_VIT.md.", "programs/to-d2.md") == (
        "see [Detection on plain ViTs](../DETECTION_VIT.md)."
    )
    assert prose("see docs/NOTHING.md", "a.md") == "see docs/NOTHING.md"
    assert prose("(arXiv\n2002.05709)", "a.md") == "([arXiv 2002.05709](https://arxiv.org/abs/2002.05709))"
    assert link_pages("(docs/SCALE.md)", "a.md") == "([Scale](SCALE.md))"
    assert link_pages("`docs/SCALE.md` [docs/SCALE.md](SCALE.md) docs/SCALE.md", "a.md").endswith(
        " [Scale](SCALE.md)"
    )


def test_a_line_with_a_remark_can_be_copied() -> None:
    block = docstring("Does it.\n\n    siamtransfer a b    what --it does\n    siamtransfer a  --c\n", "a.md")
    assert block == "Does it.\n\n```sh\n# what --it does\nsiamtransfer a b\nsiamtransfer a  --c\n```\n"


def test_blocks_of_commands_on_pages_can_be_copied_and_others_stay() -> None:
    commands = "```\nmake demo      set up; score\nsiamtransfer knn a\n```\n"
    assert copyable(commands) == "```sh\n# set up; score\nmake demo\nsiamtransfer knn a\n```\n"
    for other in (
        "```\nTop-1  38.90\n```\n",
        "```\nsiamtransfer knn a\n  k=20   38.90\n```\n",
        "```\nsiamtransfer knn \\\n```\n",
        "```yaml\nmake: 1\n```\n",
    ):
        assert copyable(commands + other) == copyable(commands) + other


def test_every_written_page_stands_in_the_navigation() -> None:
    """The build says it too, but is no part of this suite."""
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    nav = text[text.index("\nnav:") : text.index("\nhooks:")]
    named = re.findall(r"[\w/-]+\.md", nav)
    written = {file.relative_to(DOCS).as_posix() for file in DOCS.rglob("*.md")}
    generated = {"programs/index.md", "methods.md", "configurations.md", "api.md", "changelog.md"}
    assert sorted(named) == sorted(written | generated)
    assert not written & ({page_of(name) for name in PROGRAMS} | generated)


def test_the_page_on_installing_names_every_extra_once() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    table = (DOCS / "INSTALL.md").read_text(encoding="utf-8").partition("## Extras")[2]
    listed = re.findall(r"`([\w-]+)`(?=[^|\n]*\|)", table)
    assert sorted(listed) == sorted(extras)


def test_nothing_of_the_site_comes_from_the_network() -> None:
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "font: false" in settings
    assert "\nrepo_url:" not in settings
    style = Path(DOCS / "site.css").read_text(encoding="utf-8")
    assert "@import" not in style and "url(" not in style
