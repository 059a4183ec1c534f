"""Give packages other names in everything that refers to them: Python, configs, documentation.

Python is changed where its syntax tree says that a name is one of the packages; text (comments, strings, prose) only where a dotted
name leads to a module of theirs, so that the word "tools" stays a word.
"""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.data.checks import DataError
from tools.release.configs import expression_code, json_strings, parse_expression

__all__ = ["Renaming"]

_Edit = tuple[int, int, str]
_TEXT_TOKENS = {tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
_FROM = re.compile(r"from(?:\s|\\\n)+")
_CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
_LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Renaming:
    """New names of top-level packages.

    Attributes:
        names: old name to new.
        modules: dotted names (old) of the modules that there are.
    """

    names: Mapping[str, str]
    modules: Collection[str]

    def text(self, text: str) -> str:
        """Text in which dotted names of modules, or of what is in them, are renamed."""
        return _apply(text, list(self._mentions(text)))

    def _mentions(self, text: str, offset: int = 0) -> Iterator[_Edit]:
        for match in re.finditer(rf"(?<![\w.])({'|'.join(map(re.escape, self.names))})\.\w+", text):
            if match[0] in self.modules:
                yield offset + match.start(1), offset + match.end(1), self.names[match[1]]

    def python(self, source: str, path: Path) -> str:
        """A module's source.

        Raises:
            DataError: it is no Python, or gives one of the names a second meaning.
        """
        try:
            tree = ast.parse(source)
        except SyntaxError as error:
            raise DataError(f"{path}: no Python ({error})") from error
        nodes = list(ast.walk(tree))
        bound = {
            alias.name.split(".")[0]
            for node in nodes
            if isinstance(node, ast.Import)
            for alias in node.names
            if alias.asname is None and alias.name.split(".")[0] in self.names
        }
        for name in sorted(bound & set(_bindings(nodes))):
            raise DataError(f"{path}: {name!r} is imported and is the name of something else too; rename that")
        for name in sorted(bound & set(_in_f_strings(nodes))):
            raise DataError(f"{path}: {name!r} stands inside of an f-string, where positions are not told; take it out")
        return _apply(source, [*self._code_edits(source, nodes, bound), *self._text_edits(source)])

    def expression(self, text: str, path: Path) -> str:
        """An expression of a config, without its ``$``.

        Raises:
            DataError: it is no Python.
        """
        tree = parse_expression(text, path)
        nodes = list(ast.walk(tree))
        free = set(self.names) - set(_bindings(nodes))
        code = expression_code(text)
        return _apply(text, [*self._code_edits(code, nodes, free), *self._text_edits(code)])

    def config(self, text: str, path: Path) -> str:
        """A JSON config, its layout kept.

        Raises:
            DataError: an expression in it is no Python.
        """
        edits = []
        for begin, end, value in json_strings(text):
            new = "$" + self.expression(value[1:], path) if value.startswith("$") else self.text(value)
            if new != value:
                edits.append((begin, end, json.dumps(new, ensure_ascii=False)))
        return _apply(text, edits)

    def markdown(self, text: str, paths: Mapping[str, str], links: Mapping[str, str]) -> str:
        """A page: its code in backticks and fences, and its links.

        Args:
            text: the page.
            paths: beginnings of paths in code, old to new.
            links: link targets, old to new. Other targets that lead out of the folder above the page become plain text.
        """

        def code(match: re.Match) -> str:
            result = self.text(match[0])
            for old, new in paths.items():
                result = re.sub(rf"(?<![\w/.-]){re.escape(old)}", new, result)
            return result

        def link(match: re.Match) -> str:
            if match[2] in links:
                return f"[{match[1]}]({links[match[2]]})"
            return match[1] if match[2].startswith("../../") else match[0]

        return _LINK.sub(link, _CODE.sub(code, text))

    def _code_edits(self, source: str, nodes: Sequence[ast.AST], bound: Collection[str]) -> Iterator[_Edit]:
        """Names in import statements, and uses of the names that are ``bound`` to the packages."""
        offset = _Offsets(source)
        for node in nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield from self._edit(offset(alias), alias.name)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                begin = offset(node)
                yield from self._edit(begin + _FROM.match(source[begin:]).end(), node.module)
            elif isinstance(node, ast.Name) and node.id in bound:
                yield from self._edit(offset(node), node.id)

    def _edit(self, begin: int, dotted: str) -> Iterator[_Edit]:
        top = dotted.split(".")[0]
        if top in self.names:
            yield begin, begin + len(top), self.names[top]

    def _text_edits(self, source: str) -> Iterator[_Edit]:
        if not any(self._mentions(source)):  # most files have none; telling tokens apart takes long
            return
        offset = _Offsets(source)
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type in _TEXT_TOKENS:
                yield from self._mentions(token.string, offset.at(*token.start))


class _Offsets:
    """Offsets in characters of positions in lines and columns; a syntax tree counts columns in bytes of UTF-8."""

    def __init__(self, source: str) -> None:
        self.lines = io.StringIO(source).readlines()
        self.begins = [0]
        for line in self.lines:
            self.begins.append(self.begins[-1] + len(line))

    def __call__(self, node: ast.AST) -> int:
        line = self.lines[node.lineno - 1]
        return self.begins[node.lineno - 1] + len(line.encode()[: node.col_offset].decode())

    def at(self, line: int, column: int) -> int:
        return self.begins[line - 1] + column


def _bindings(nodes: Sequence[ast.AST]) -> Iterator[str]:
    """Names that code gives a meaning other than by ``import name``."""
    for node in nodes:
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.name


def _in_f_strings(nodes: Sequence[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            yield from (inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name))


def _apply(text: str, edits: list[_Edit]) -> str:
    for begin, end, new in sorted(edits, reverse=True):
        text = text[:begin] + new + text[end:]
    return text
