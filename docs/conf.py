"""How Sphinx builds these pages: Markdown by MyST, and a reference from the docstrings, which are Markdown as well."""

import inspect
import re
from importlib import import_module

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.utils import new_document
from myst_parser.parsers.sphinx_ import MystParser
from sphinx.addnodes import pending_xref
from sphinx.util.docutils import SphinxDirective

import needle

project = "needle"
author = "The needle authors"
copyright = "The needle authors, MIT license"
version = release = needle.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_heading_anchors = 3  # links name headings as GitHub does

html_theme = "furo"
html_title = f"needle {version}"
html_static_path, html_css_files = ["static"], ["wide.css"]
html_copy_source = html_show_sourcelink = False
pygments_style, pygments_dark_style = "friendly", "native"

autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
add_module_names = False
maximum_signature_line_length = 100


class Markdown(SphinxDirective):
    """Read the content as Markdown; a name in backticks becomes a link if the reference has an entry for it."""

    has_content = True

    def run(self):
        document = new_document(self.state.document["source"], self.state.document.settings)
        MystParser().parse(fence_examples("\n".join(self.content)), document)
        scope = {key: self.env.ref_context.get(key) for key in ("py:module", "py:class")}
        for name in list(document.findall(nodes.literal)):
            if re.fullmatch(r"[\w.]+", name.astext()):
                target = {"refdomain": "py", "reftype": "obj", "reftarget": name.astext()}
                name.replace_self(pending_xref("", name.deepcopy(), **target, **scope))
        return document.children


def fence_examples(text):
    """Put each `>>>` example into a fence: without one, Markdown reads it as a quotation."""
    return re.sub(r"^>>> .*(?:\n.+)*", lambda example: f"```pycon\n{example[0]}\n```", text, flags=re.MULTILINE)


def as_markdown(app, what, name, obj, options, lines):
    """Put a docstring into a `markdown` directive, because autodoc's own text is reST."""
    if lines:
        text = (line if line.startswith((">>>", "...", "    ")) else arrows(line) for line in lines)
        lines[:] = [".. markdown::", "", *("   " + line for line in text), ""]


def arrows(line):
    """Write -> as one character, so that no line ends inside it; code in backticks stays as it is."""
    return re.sub(r"(`[^`]*`)|(?<= )->(?= )", lambda match: match[1] or "→", line)


class Api(SphinxDirective):
    """The reference of some names of a module: functions, and classes with the named `:members:`, or with all.

    With `:inherited:` also those of base classes.
    """

    has_content = True
    required_arguments = 1
    option_spec = {"members": directives.unchanged, "inherited": directives.flag}  # noqa: RUF012 (docutils reads it)

    def run(self):
        module = self.arguments[0]
        lines = [f".. currentmodule:: {module}", ""]
        for name in " ".join(self.content).split():
            is_class = inspect.isclass(getattr(import_module(module), name))
            lines.append(f".. auto{'class' if is_class else 'function'}:: {name}")
            if is_class and "members" in self.options:
                members = ", ".join(self.options["members"].split())
                lines += [f"   :members: {members}", *["   :undoc-members:"] * bool(members)]
                lines += ["   :inherited-members: object"] * ("inherited" in self.options)
            lines.append("")
        return self.parse_text_to_nodes("\n".join(["```{eval-rst}", *lines, "```"]))


def setup(app):
    app.add_directive("markdown", Markdown)
    app.add_directive("api", Api)
    app.connect("autodoc-process-docstring", as_markdown)
