"""Formulas as MathML, converted when the site is built: no script, no font from elsewhere, readable aloud."""

from docutils import nodes
from docutils.utils.math import latex2mathml


def visit_inline(translator, node):
    """Write an inline formula."""
    translator.body.append(f'<span class="math">{latex2mathml.tex2mathml(node.astext())}</span>')
    raise nodes.SkipNode


def visit_display(translator, node):
    """Write a displayed formula."""
    formula = latex2mathml.tex2mathml(node.astext(), as_block=True)
    translator.body.append(f'<div class="math display">{formula}</div>')
    raise nodes.SkipNode


def setup(app):
    """Register the renderer."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
