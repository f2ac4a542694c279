"""The README's program learns; the install commands name extras that exist; the pages of the site are reached.

The pages themselves run where the site is built: `python -m sphinx -W docs site`.
"""

import pathlib
import re
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parents[1]


def test_the_readme_runs_and_its_program_learns(capsys):
    (program,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.S | re.M)
    exec(compile(program, "README.md", "exec"), {"__name__": "page"})
    error = re.match(r"mean squared error.*: (\S+)\n", capsys.readouterr().out)
    assert float(error[1]) < 0.01


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "examples/intent/README.md", ".ci/run"])
def test_the_install_commands_name_extras_that_exist(name):
    listed = re.findall(r"pip install [^\n`]*?(?:\.|jaxrnn)\[([\w,]+)\]", (ROOT / name).read_text())
    assert listed
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(",".join(listed).split(",")) <= set(extras)


def links(page):
    """Return the files that a Markdown page links to, without code blocks."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)
    found = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    return [(page.parent / name).resolve() for name in found if not re.match(r"\w+:", name)]


@pytest.mark.parametrize("page", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]), ids=lambda p: p.name)
def test_a_page_links_to_files_that_exist(page):
    missing = [str(path.relative_to(ROOT)) for path in links(page) if not path.exists()]
    assert not missing


def test_every_code_block_of_a_page_runs_when_the_site_is_built():
    for page in ROOT.glob("docs/**/*.md"):
        text = page.read_text()
        if "```python" in text:
            assert page.name in ("index.md", "cpu.md", "cells.md", "choose-a-cell.md"), f"{page}: write {{code-cell}}"
        assert ("{code-cell}" in text) == text.startswith("---\nfile_format: mystnb\n"), page
