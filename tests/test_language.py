"""Code, docs and messages use the terms of the field, and docstrings begin with a verb or a noun."""

import ast
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[1]
SKIPPED = ("tests/test_language.py", "examples/intent/corpus/", "benchmarks/results/", "docs/long-memory/", "LICENSE")
KINDS = (".py", ".md", ".h", ".cc", ".c", ".toml", ".sh", ".html", ".yml")

BANNED = {
    r"\bcross(?:es|ed|ing)?\b(?![- _](?:entropy|validat|product))": "unroll, run over time",
    r"\bthe way back\b|\bway_back\b": "the backward pass",
    r"(?<!pytest\.)(?<!question )(?<!punctuation )\bmarks?\b|\bMarks\b": "masks, StepMasks",
    r"\banew\b|\bfresh(?:ly)?\b": "reset, new, again",
    r"\bput(?:s|ting)? out\b": "output, return",
    r"\breckon\w*": "compute",
    r"\b(?:is|are|was|be) had\b": "is obtained",
    r"\bheard?\b|\bhears\b": "receive, read",
    r"\bbesides?\b": "next to, and also",
    r"\bof (?:its|their) own\b": "own, separate",
    r"\bon the way\b": "meanwhile",
    r"\bat (?:its|their) word\b": "not checked",
    r"\b(?:s|k|y|d|h|c|xs|ys)_(?:there|back)\b|^\s*there\s*=|\bthere, back\b": "forward, backward",
    r"\bTerms\b|\bas_v\b|\bof_v\b": "Preactivations, recurrent_inputs, recurrent_cotangents",
    r"\bsolved\(|\.enters\b": "linear_recurrence, initial_state_grad",
    r"\bclass (?:Rows|Ones|Crossed|Pulled)\b|\bruled\b": "SequenceInputs, RowInputs, ForwardOutputs, BackwardOutputs",
    r"\bpresent\(": "drop_symbolic_zeros",
    r"\brefuses\(|\bHOW\b|\bwhy_not\b": "unsupported_reason, INSTALL_HINT, unavailable_reason",
    r"\bENOUGH\b|\bSHORT\b|\bFEW\b|\bSHORTEST\b|\bFEWEST_ROWS\b|\bLOUDER\b": "a name that says what is counted",
    r"\botherwise=|jacobian=\"|\.over\(": "an object: fallback=Scan(), jacobian=Full()",
    r"\bRemembering\b|\bBeside\b|\bHighestAndMean\b": "IndRNNInit, ConcatInputs, MaxAndMeanPooling",
    r"\bsmallest=|\blargest=|\bangle=": "r_min, r_max, max_phase",
    r"\btrials? that left no\b|\bas it was before\b": "no history",
}  # fmt: skip
"""Patterns that are not written, and what is written instead."""

VERBS = {"Give", "Gives", "Say", "Says", "Be", "Do", "As", "Let", "Put", "Puts", "Make", "Take", "Go", "Pull", "Walk"}
"""First words of no docstring. It begins with Return, Compute, Apply, Raise, another verb of the field, or a noun."""

FILES = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
FOLDERS = sorted({"/".join(name.split("/")[:2]) if "/" in name else "." for name in FILES})


def texts(folder):
    for name in FILES:
        at = "/".join(name.split("/")[:2]) if "/" in name else "."
        if at == folder and name.endswith(KINDS) and not name.startswith(SKIPPED) and (ROOT / name).exists():
            yield name, (ROOT / name).read_text()


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_banned_word(folder):
    found = [
        f"{name}:{number}: {match[0]!r}, write: {instead}"
        for name, text in texts(folder)
        for number, line in enumerate(text.splitlines(), 1)
        for pattern, instead in BANNED.items()
        for match in re.finditer(pattern, line)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("folder", [f for f in FOLDERS if not f.startswith("tests")])
def test_docstrings_begin_with_a_verb_of_the_field_or_a_noun(folder):
    found = []
    for name, text in texts(folder):
        if not name.endswith(".py"):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
                first = (ast.get_docstring(node) or "Return").split(maxsplit=1)[0].strip(".,:`")
                if first in VERBS:
                    found.append(f"{name}: {getattr(node, 'name', 'module')} begins with {first!r}")
    assert not found, "\n".join(found)
