"""Pages of reference, one a room, from the sources' own docstrings. Nothing is imported: the text is parsed."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

SECTIONS = ("Args", "Returns", "Raises", "Attributes")


def write_reference(package: Path, folder: Path) -> None:
    """A markdown page for each room of `package`, and an index of them, into `folder`."""
    folder.mkdir(exist_ok=True)
    rooms = sorted({path.relative_to(package).parts[0].removesuffix(".py") for path in package.rglob("*.py")})
    written = []
    for room in rooms:
        paths = sorted((package / room).rglob("*.py")) if (package / room).is_dir() else [package / f"{room}.py"]
        modules = [text for path in paths if (text := "\n".join(_module(package, path)))]
        if modules and not room.startswith("__"):
            _write(folder / f"{room}.md", "\n\n".join([f"# understudy.{room}", *modules]) + "\n")
            written.append(room)
    toctree = "\n".join(["# Reference", "", "```{toctree}", ":maxdepth: 2", "", *written, "```", ""])
    _write(folder / "index.md", toctree)


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:  # an unchanged page is not built again
        path.write_text(text)


def _module(package: Path, path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    told = ast.get_docstring(tree)
    if not told:
        return
    name = ".".join(("understudy", *path.relative_to(package).with_suffix("").parts)).removesuffix(".__init__")
    yield f"## {name}\n\n{_markdown(told)}\n"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield from _item(node, "###")


def _item(node: ast.FunctionDef | ast.ClassDef, level: str) -> Iterator[str]:
    yield f"{level} {node.name}\n\n```python\n{_signature(node)}\n```\n\n{_markdown(ast.get_docstring(node) or '')}\n"
    for part in node.body if isinstance(node, ast.ClassDef) else ():
        if isinstance(part, ast.FunctionDef) and not part.name.startswith("_") and ast.get_docstring(part):
            yield from _item(part, level + "#")


def _signature(node: ast.FunctionDef | ast.ClassDef) -> str:
    if isinstance(node, ast.ClassDef):
        fields = [ast.unparse(part) for part in node.body if isinstance(part, ast.AnnAssign)]
        return "\n    ".join([f"class {node.name}:", *(f for f in fields if not f.startswith("_"))]).rstrip(":")
    gives = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    args = [arg for part in _split(ast.unparse(node.args)) if (arg := part.strip()) not in ("self", "")]
    whole = f"{node.name}({', '.join(args)}){gives}"
    if len(whole) <= 100:
        return whole
    return "\n".join([f"{node.name}(", *(f"    {arg}," for arg in args), f"){gives}"])


def _split(args: str) -> list[str]:
    """Arguments at the commas that stand in no bracket and no string."""
    parts, depth, quote = [""], 0, ""
    for letter in args:
        if quote or letter in "'\"":
            quote = "" if letter == quote else quote or letter
        depth += (letter in "([{") - (letter in ")]}") if not quote else 0
        if letter == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _markdown(docstring: str) -> str:
    """A docstring as markdown: it nearly is; sections of arguments and errors become lists."""
    lines, inside = [], False
    for line in docstring.splitlines():
        if line.rstrip(":") in SECTIONS and line.endswith(":"):
            lines += [f"**{line.rstrip(':')}**", ""]
            inside = True
        elif inside and line and not line.startswith(" "):
            lines += ["", line]
            inside = False
        elif inside and re.match(r"    \S", line):
            lines.append("- " + re.sub(r"^([\w*, .]+): ", r"`\1`: ", line.strip()))
        else:
            lines.append(line.strip() if inside else line)
    return "\n".join(lines)
