"""Settings of the documentation; `generate.py` writes the reference pages from the code itself."""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math import latex2mathml

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

# AiiDA needs a folder even to say which inputs a calculation has; this one is nobody's, and is removed at the end.
SCRATCH = tempfile.TemporaryDirectory(prefix='perovmlip-docs-')
os.environ['AIIDA_PATH'] = SCRATCH.name

from aiida_perovmlip import __version__  # noqa: E402 - AiiDA must not see the user's own folder first

project = 'aiida-perovmlip'
author = 'The aiida-perovmlip developers'
project_copyright = '2026, the aiida-perovmlip developers'
version = release = __version__

extensions = ['myst_parser', 'sphinx_copybutton', 'sphinx_design']
source_suffix = {'.md': 'markdown'}
exclude_patterns = ['_build', 'reference/generated/labelling-tables.md']  # included elsewhere
myst_enable_extensions = ['colon_fence', 'deflist', 'dollarmath']
myst_heading_anchors = 3
nitpicky = True
copybutton_exclude = '.linenos, .gp, .go'

html_theme = 'furo'
html_title = f'aiida-perovmlip {__version__}'
html_math_renderer = 'mathml'
html_theme_options = {'navigation_with_keys': True}


def write_reference(app: Any, config: Any) -> None:
    """Write the reference pages before Sphinx looks for pages."""
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='Creating AiiDA configuration folder')
        from aiida.manage.configuration import load_profile
        from aiida.storage.sqlite_temp import SqliteTempBackend
    import generate

    load_profile(
        SqliteTempBackend.create_profile('docs'), allow_switch=True
    )  # in memory; for defaults, which are nodes
    generate.write(HERE / 'reference' / 'generated')


def visit_inline(writer: Any, node: nodes.math) -> None:
    """Write a formula within a line as MathML, which needs no script and no network."""
    writer.body.append(str(latex2mathml.tex2mathml(node.astext(), as_block=False)))
    raise nodes.SkipNode


def visit_block(writer: Any, node: nodes.math_block) -> None:
    """Write a formula of its own as MathML."""
    formula = latex2mathml.tex2mathml(node.astext(), as_block=True)
    writer.body.append(f'<div class="math" style="margin: 1.2em 0; font-size: 110%">{formula}</div>')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Connect the reference pages and the formulas."""
    app.connect('config-inited', write_reference)
    app.add_html_math_renderer('mathml', (visit_inline, None), (visit_block, None))
    return {'parallel_read_safe': True}
