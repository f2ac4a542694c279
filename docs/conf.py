"""The settings of the documentation site: `python -m sphinx -W --keep-going -j 2 docs site`."""

import os
import pathlib
import sys

import jaxrnn

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))
found = [str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
os.environ["PYTHONPATH"] = os.pathsep.join(found)  # pages import the examples
# Pages compile more than they compute.
os.environ.update(JAX_DISABLE_MOST_OPTIMIZATIONS="1", XLA_FLAGS="--xla_cpu_use_fusion_emitters=false")
os.environ.update(KERAS_BACKEND="jax", JAX_PLATFORMS="cpu")

project, author, copyright = "jaxrnn", "the jaxrnn authors", "the jaxrnn authors"
version = release = jaxrnn.__version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "mathml",
    "docstrings",
    "links",
]
exclude_patterns = ["_ext"]
toc_object_entries = False
default_role = "py:obj"

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 240
nb_execution_in_temp = True
nb_merge_streams = True
html_math_renderer = "mathml"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = "jaxrnn"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_theme_options = {"navigation_with_keys": True}
html_show_sphinx = False
html_search_scorer = str(HERE / "_ext" / "scorer.js")
copybutton_exclude = ".linenos, .gp, .go"
