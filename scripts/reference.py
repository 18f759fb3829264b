"""Make docs/reference.md (from docstrings) and docs/cli.md (from the verbs' help); the same code gives the same pages.

    python scripts/reference.py            # write both
    python scripts/reference.py --check    # exit code 1 if one of them is not up to date

What is listed: the names in a module's `__all__`, or those named here where a module has none.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import itertools
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
PACKAGE = "hardnet_match"
WIDTH = 100


class Part(NamedTuple):
    """A section of the page: a module, and the names to list of one without `__all__`."""

    module: str
    names: str = ""


PARTS = (
    Part("hardnet_match"),
    Part("hardnet_match.presets", "PRESETS METHODS CHOICES Composition compose known"),
    Part("hardnet_match.errors", "*"),
    Part("hardnet_match.devices", "choose_device"),
    Part("hardnet_match.frames", "*"),
    Part("hardnet_match.images"),
    Part("hardnet_match.store"),
    Part("hardnet_match.matching"),
    Part("hardnet_match.jobs"),
    Part("hardnet_match.jobs.train", "TrainSummary train"),
    Part("hardnet_match.jobs.finetune", "finetune"),
    Part("hardnet_match.jobs.patches", "PatchesSummary make_patches"),
    Part("hardnet_match.jobs.pca", "PcaSummary add_projection"),
    Part("hardnet_match.jobs.describe", "DescribeSummary describe_patches"),
    Part("hardnet_match.jobs.view", "ViewSummary view_features view_matches"),
    Part("hardnet_match.jobs.doctor"),
    Part("hardnet_match.jobs.homography", "HomographyScores"),
    Part("hardnet_match.jobs.pose", "PoseScores"),
    Part("hardnet_match.jobs.sfm_scores", "SfmScores"),
    Part("hardnet_match.jobs.brown", "BrownScores"),
    Part("hardnet_match.detectors"),
    Part("hardnet_match.shape"),
    Part("hardnet_match.orientation"),
    Part("hardnet_match.descriptors"),
    Part("hardnet_match.architectures", "Architecture Loaded build open_network load_network family_of"),
    Part("hardnet_match.weights"),
    Part("hardnet_match.patches", "extract_patches fit_patches"),
    Part("hardnet_match.pyramid", "as_image patch_pyramid"),
    Part("hardnet_match.foreign", "adapted"),
    Part("hardnet_match.extensions", "GROUPS Extension installed names find"),
    Part("hardnet_match.sfm"),
    Part("hardnet_match.retrieval.index", "Index"),
    Part("hardnet_match.retrieval.codebook", "Codebook"),
    Part("hardnet_match.retrieval.verification", "Settings Verified verify rerank"),
    Part("hardnet_match.retrieval.expansion", "Expansion"),
    Part("hardnet_match.retrieval.ground_truth", "GroundTruth TruthQuery read_ground_truth truth_of_groups"),
    Part("hardnet_match.training.recipe", "Recipe names find read"),
    Part("hardnet_match.training.patchset", "PatchSet save_joined"),
    Part("hardnet_match.training.sources.choose", "open_source"),
    Part("hardnet_match.training.sources.gather", "gather gather_to_file"),
    Part("hardnet_match.training.sampling"),
    Part("hardnet_match.training.augment"),
    Part("hardnet_match.training.losses"),
    Part("hardnet_match.training.tasks"),
    Part("hardnet_match.training.loop"),
    Part("hardnet_match.training.trainer", "Trainer"),
    Part("hardnet_match.training.pca", "Moments Projection fit_projection"),
    Part("hardnet_match.export"),
    Part("hardnet_match.metrics.patches", "*"),
    Part("hardnet_match.metrics.homography", "*"),
    Part("hardnet_match.metrics.pose", "*"),
    Part("hardnet_match.metrics.ranking", "*"),
    Part("hardnet_match.metrics.recall", "*"),
    Part("hardnet_match.metrics.hpatches", "*"),
    Part("hardnet_match.report"),
    Part("hardnet_match.plugins.hloc"),
    Part("hardnet_match.plugins.colmap"),
    Part("hardnet_match.plugins.opencv"),
    Part("hardnet_match.plugins.kornia"),
    Part("hardnet_match.benchmark.peers"),
    Part("hardnet_match.world"),
)

# Docstrings to Markdown -----------------------------------------------------------------------------------------------

_SECTION = re.compile(r"^(Args|Returns|Yields|Raises|Example|Examples|Attributes):\s*$")
_ENTRY = re.compile(r"^(\*{0,2}[\w.]+(?:, \*{0,2}[\w.]+)*): ?(.*)$")


def markdown_of(doc: str) -> str:
    """A docstring in the house's form (Google's sections) as Markdown."""
    blocks: list[tuple[str, list[str]]] = [("", [])]
    for line in inspect.cleandoc(doc).splitlines():
        found = _SECTION.match(line)
        if found:
            blocks.append((found[1], []))
        elif blocks[-1][0] and line and not line.startswith(" "):
            blocks.append(("", [line]))  # prose after a section
        else:
            blocks[-1][1].append(line)
    return "\n\n".join(text for text in (_section(title, lines) for title, lines in blocks) if text)


def _section(title: str, lines: list[str]) -> str:
    if not title:
        return "\n".join(lines).strip("\n")
    body = textwrap.dedent("\n".join(lines)).strip("\n")
    if title.startswith("Example"):
        return f"```text\n{body}\n```"
    if title in ("Returns", "Yields"):
        return f"{title}: {body}"
    return f"{title}:\n\n" + "\n".join(_entries(body.splitlines()))


def _entries(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        found = _ENTRY.match(line)
        if found:
            yield f"- `{found[1].replace(', ', '`, `')}`: {found[2]}".rstrip()
        elif line.strip():
            yield "  " + line.strip()


# Objects --------------------------------------------------------------------------------------------------------------


def _annotation(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else str(inspect.formatannotation(annotation))


def _parameter(parameter: inspect.Parameter) -> str:
    star = "*" if parameter.kind is parameter.VAR_POSITIONAL else ""
    star = "**" if parameter.kind is parameter.VAR_KEYWORD else star
    text = star + parameter.name
    if parameter.annotation is not parameter.empty:
        text += f": {_annotation(parameter.annotation)}"
    if parameter.default is not parameter.empty:
        default = repr(parameter.default)
        # An object's address, or how a machine names its folders, is no part of a signature.
        default = "..." if " at 0x" in default or default.startswith("<") else default
        text += f" = {default}" if ":" in text else f"={default}"
    return text


def signature(name: str, thing: Any) -> str:
    """`name(parameters) -> result`, a parameter a line where it is long; empty where there is none to speak of."""
    try:
        found = inspect.signature(thing)
    except (TypeError, ValueError):
        return ""
    given: list[str] = []
    last: Any = None
    for parameter in found.parameters.values():
        if parameter.name in ("self", "cls") and not given:
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and last not in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL):
            given.append("*")
        given.append(_parameter(parameter))
        last = parameter.kind
    result = ""
    if not inspect.isclass(thing) and found.return_annotation is not found.empty:
        result = f" -> {_annotation(found.return_annotation)}"
    line = f"{name}({', '.join(given)}){result}"
    if len(line) <= WIDTH:
        return line
    return f"{name}(\n" + "".join(f"    {item},\n" for item in given) + f"){result}"


def _source(module: Any) -> ast.Module:
    return ast.parse(inspect.getsource(module))


def _home(module: Any, name: str) -> Any:
    """The module that defines a name which `module` may only hand on."""
    for node in _source(module).body:
        if isinstance(node, ast.ImportFrom) and any((alias.asname or alias.name) == name for alias in node.names):
            place = "." * node.level + (node.module or "")
            return importlib.import_module(place, module.__package__)
    return module


def _note(module: Any, name: str) -> str:
    """The string below an assignment, which says what a constant is."""
    body = _source(module).body
    for node, after in itertools.pairwise(body):
        if isinstance(node, ast.AnnAssign | ast.Assign):
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            if not (isinstance(target, ast.Name) and target.id == name):
                continue
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                return str(after.value.value)
            return ""
    return ""


def _constant(module: Any, name: str, value: Any) -> str:
    shown = ""
    if isinstance(value, dict):
        shown = "Names: " + ", ".join(f"`{key}`" for key in value) + "."
    elif isinstance(value, int | float | str):
        shown = f"`{value!r}`."
    elif isinstance(value, tuple | list) and all(isinstance(item, int | float | str) for item in value):
        shown = ", ".join(f"`{item}`" for item in value) + "."
    return "\n\n".join(part for part in (markdown_of(_note(_home(module, name), name)), shown) if part)


def _own_doc(thing: Any) -> str:
    """The docstring that was written for it: none that a dataclass or a named tuple makes up, or that is inherited."""
    doc = thing.__dict__.get("__doc__") if inspect.isclass(thing) else getattr(thing, "__doc__", None)
    if not doc or (inspect.isclass(thing) and doc.startswith(f"{thing.__name__}(")):
        return ""
    return str(doc)


def _members(cls: type) -> Iterator[tuple[str, Any]]:
    seen = set()
    for base in cls.__mro__:
        if not base.__module__.startswith(PACKAGE):
            continue
        for name, member in vars(base).items():
            if name in seen or (name.startswith("_") and name != "__call__"):
                continue
            seen.add(name)
            plain = member.__func__ if isinstance(member, classmethod | staticmethod) else member
            if isinstance(plain, property) or inspect.isfunction(plain):
                yield name, plain


def described(module: Any, name: str, thing: Any, told: dict[int, str]) -> Iterator[str]:
    """The Markdown of one public name; members of a base class are told with the first class that has them."""
    yield f"### {name}"
    if not (inspect.isclass(thing) or inspect.isfunction(thing)):
        yield _constant(module, name, thing)
        return
    if inspect.isclass(thing) and issubclass(thing, BaseException):
        yield f"Derived from {', '.join(f'`{base.__name__}`' for base in thing.__bases__)}."
    elif call := signature(name, thing):
        yield f"```text\n{call}\n```"
    yield markdown_of(_own_doc(thing))
    if inspect.isclass(thing):
        elsewhere: dict[str, list[str]] = {}
        for member_name, member in _members(thing):
            doc = _own_doc(member)
            if not doc:
                continue
            first = told.setdefault(id(member), name)
            if first != name:
                elsewhere.setdefault(first, []).append(f"`{member_name}`")
                continue
            if isinstance(member, property):
                head = f"{name}.{member_name}"
            else:
                head = signature(f"{name}.{member_name}", member)
            yield f"```text\n{head}\n```"
            yield markdown_of(doc)
        for first, names in elsewhere.items():
            yield f"As `{first}` has them: {', '.join(names)}."


def _first_sentence(doc: str) -> str:
    """What a module is, for the contents."""
    paragraph = " ".join(inspect.cleandoc(doc).partition("\n\n")[0].split())
    return re.split(r"(?<=[\w`)])[.:;](?= |$)", paragraph)[0]


def public(part: Part) -> list[str]:
    """The names a part of the page lists, in its order."""
    module = importlib.import_module(part.module)
    if part.names not in ("", "*"):
        return part.names.split()
    if not part.names:
        return list(module.__all__)
    defined = [name for name in vars(module) if not name.startswith("_")]
    return [
        name
        for name in defined
        if getattr(getattr(module, name), "__module__", None) == part.module or _note(module, name)
    ]


def reference() -> str:
    """docs/reference.md."""
    told: dict[int, str] = {}
    members: dict[int, str] = {}
    pages: list[str] = []
    contents: list[str] = []
    for part in PARTS:
        module = importlib.import_module(part.module)
        pages += [f"## {part.module}", markdown_of(module.__doc__ or "")]
        contents.append(f"- [{part.module}](#{slug(part.module)}): {_first_sentence(module.__doc__ or '')}")
        for name in public(part):
            thing = getattr(module, name)
            home = told.setdefault(id(thing), part.module) if callable(thing) else part.module
            if home != part.module:
                pages += [f"### {name}", f"See [{home}](#{slug(home)})."]
                continue
            pages += described(module, name, thing, members)
    head = [
        "# Reference",
        "<!-- Made by scripts/reference.py; change the docstrings, not this page. -->",
        "Every public name, from the docstrings. How the parts fit together is in [python.md](python.md), the"
        "\nconventions in [conventions.md](conventions.md), the command line in [cli.md](cli.md).",
        "\n".join(contents),
    ]
    return "\n\n".join(text for text in (*head, *pages) if text) + "\n"


def slug(heading: str) -> str:
    """The anchor that a Markdown page has for a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


# The command line -----------------------------------------------------------------------------------------------------


def _commands() -> Iterator[tuple[str, Any]]:
    import typer

    from hardnet_match.cli import VERBS, app

    root: Any = typer.main.get_command(app)
    for module in VERBS:
        name = getattr(module, "NAME", module.__name__.rpartition(".")[2])
        command = root.commands[name]
        if hasattr(command, "commands"):
            yield name, command
            for below, one in command.commands.items():
                yield f"{name} {below}", one
        else:
            yield name, command


def _prose(text: str | None) -> str:
    return inspect.cleandoc((text or "").replace("\b\n", "")).strip()


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _option_row(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in sorted(option.opts, key=len))
    if option.secondary_opts:
        names += " / " + ", ".join(f"`{name}`" for name in option.secondary_opts)
    metavar = "" if option.is_flag else f" `{option.metavar or option.type.name.upper()}`"
    default = option.default
    shown = "" if default is None or isinstance(default, bool) or callable(default) else f"{default}"
    if option.is_flag and option.secondary_opts and default is not None:
        shown = "on" if default else "off"
    if option.required:
        shown = "required"
    return f"| {_cell(names + metavar)} | {_cell(option.help or '')} | {_cell(shown)} |"


def _command_section(name: str, command: Any) -> Iterator[str]:
    yield f"## {name}"
    if hasattr(command, "commands"):
        yield _prose(command.help)
        yield "Verbs of its own: " + ", ".join(f"[{one}](#{slug(f'{name} {one}')})" for one in command.commands) + "."
        return
    arguments = [item for item in command.params if item.param_type_name == "argument"]
    options = [item for item in command.params if item.param_type_name == "option"]
    words = "".join(f" {argument.metavar or argument.name.upper()}" for argument in arguments)
    yield f"    hardnet-match {name} [OPTIONS]{words}"
    yield _prose(command.help)
    for argument in arguments:
        yield f"`{argument.metavar or argument.name.upper()}`: {_prose(argument.help)}"
    rows = [_option_row(option) for option in options if not option.hidden]
    yield "\n".join(["| option | | default |", "|---|---|---|", *rows])
    lines = _prose(command.epilog).splitlines()
    yield "```text\n" + "\n".join(line.strip() for line in lines if line.strip() and line != "Examples:") + "\n```"


def command_line() -> str:
    """docs/cli.md."""
    from hardnet_match.cli import app

    commands = list(_commands())
    short = {name: command.get_short_help_str(200) for name, command in commands}
    rows = [f"| [{name}](#{slug(name)}) | {_cell(short[name])} |" for name, _ in commands]
    pages = [
        "# Command line",
        "<!-- Made by scripts/reference.py; change the help texts in hardnet_match/cli, not this page. -->",
        "Every verb, from its `--help`. `hardnet-match` and `python -m hardnet_match` are the same command.",
        "\n".join(["| verb | |", "|---|---|", *rows]),
        "Exit codes: 0 done; 1 failed; 2 wrong usage; 3 done, but some images were skipped (named, with the reason);"
        "\n130 stopped by Ctrl-C, 143 by SIGTERM, 129 by a terminal that closed. What is written stays readable, and"
        "\nthe same command goes on from there. `--json` prints one summary on stdout; logs and progress go to stderr."
        "\n`HARDNET_MATCH_DEBUG=1` shows tracebacks.",
    ]
    assert app.info.name == "hardnet-match"
    for name, command in commands:
        pages += _command_section(name, command)
    return "\n\n".join(text for text in pages if text) + "\n"


PAGES = {"docs/reference.md": reference, "docs/cli.md": command_line}


def main() -> int:
    """Write the pages, or say which are out of date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a page is not up to date")
    options = parser.parse_args()
    old = []
    for name, make in PAGES.items():
        path, text = ROOT / name, make()
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        old.append(name)
        if not options.check:
            path.write_text(text, encoding="utf-8")
    if old:
        print(f"{'out of date' if options.check else 'written'}: {', '.join(old)}")
    return 1 if options.check and old else 0


if __name__ == "__main__":
    sys.exit(main())
