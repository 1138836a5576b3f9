"""The engine's own syntax tree (``EXPLAIN AST``), read into nodes."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from storage.sql.masking import denied

_NODE = re.compile(
    r"( *)([A-Z][\w:]*)(?: +(.*?))?(?: +\(alias (.*?)\))?(?: +\(children \d+\))?", re.DOTALL | re.ASCII
)


class Node(NamedTuple):
    """A line of EXPLAIN AST: how deep it stands, what it is, its name and its alias."""

    depth: int
    kind: str
    name: str
    alias: str


def nodes(tree: str) -> list[Node]:
    """The nodes of EXPLAIN AST's text, parents first.

    Raises QueryFailed (ACCESS_DENIED): a line is not a node.
    """
    found = []
    for line in tree.split("\n"):
        if not line.strip():
            continue
        match = _NODE.fullmatch(line)
        if match is None:
            raise denied("the engine's syntax tree of this statement cannot be read")
        found.append(Node(len(match[1]), match[2], match[3] or "", match[4] or ""))
    if not found:
        raise denied("the engine gives no syntax tree of this statement")
    return found


def children(tree: Sequence[Node], index: int) -> Iterator[int]:
    """Indices of the direct children of the node at ``index``."""
    depth = tree[index].depth
    for at in range(index + 1, len(tree)):
        if tree[at].depth <= depth:
            return
        if tree[at].depth == depth + 1:
            yield at


def arguments(tree: Sequence[Node], index: int) -> list[int]:
    """Indices of the arguments of the function at ``index``."""
    return [
        argument
        for child in children(tree, index)
        if tree[child].kind == "ExpressionList"
        for argument in children(tree, child)
    ]
