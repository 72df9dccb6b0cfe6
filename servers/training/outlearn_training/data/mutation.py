"""Variants of a Python program by small edits of its syntax tree.

*Faults* usually change what it computes, *rewrites* usually do not; which is which is for its tests to say. Every
variant is printed by `ast.unparse` and most have been rewritten, so that style does not give the label away.
"""

import ast
import random
from collections.abc import Callable, Iterator

Edit = Callable[[], None]
Sites = Callable[[ast.AST], Iterator[Edit]]

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.GtE),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
MIRRORED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.Gt,
    ast.LtE: ast.GtE,
    ast.Gt: ast.Lt,
    ast.GtE: ast.LtE,
    ast.Eq: ast.Eq,
    ast.NotEq: ast.NotEq,
}
OPERATORS: dict[type[ast.operator], tuple[type[ast.operator], ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Add, ast.FloorDiv),
    ast.Div: (ast.FloorDiv, ast.Mult),
    ast.FloorDiv: (ast.Div, ast.Mod),
    ast.Mod: (ast.FloorDiv,),
    ast.Pow: (ast.Mult,),
}
TWINS = {"min": "max", "max": "min", "any": "all", "all": "any", "lower": "upper", "upper": "lower", "floor": "ceil"}
NAMES = ("value", "item", "current", "total", "result", "left", "right", "index", "count", "data", "part", "acc")


def variant(program: str, rng: random.Random, *, fault: bool, rewrites: int) -> str:
    """The program with up to `rewrites` rewrites and then, where asked for, one fault; without docstrings."""
    tree = plain(program)
    for _ in range(rewrites):
        _apply(tree, REWRITES, rng)
    if fault:
        _apply(tree, FAULTS, rng)
    return ast.unparse(ast.fix_missing_locations(tree))


def plain(program: str) -> ast.Module:
    """Its syntax tree without docstrings. Raises SyntaxError."""
    tree = ast.parse(program)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree


def _apply(tree: ast.Module, kinds: tuple[Sites, ...], rng: random.Random) -> None:
    """One edit: its kind is drawn first, so that what a program is full of does not crowd out the rest."""
    for sites in rng.sample(kinds, len(kinds)):
        edits = [edit for node in _walk(tree) for edit in sites(node)]
        if edits:
            rng.choice(edits)()
            return


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """A tree's nodes without those of annotations, which do nothing."""
    yield node
    for name, value in ast.iter_fields(node):
        if name not in ("annotation", "returns"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from _walk(child)


def _set(node: ast.AST, **fields: object) -> Edit:
    def edit() -> None:
        for name, value in fields.items():
            setattr(node, name, value)

    return edit


def _put(items: list[ast.stmt], index: int, *new: ast.stmt) -> Edit:
    def edit() -> None:
        items[index : index + 1] = new

    return edit


def _blocks(node: ast.AST) -> Iterator[list[ast.stmt]]:
    for name in ("body", "orelse"):
        block = getattr(node, name, None)
        if isinstance(block, list) and not isinstance(node, ast.Module):
            yield block


def other_comparison(node: ast.AST) -> Iterator[Edit]:
    """`<` for `<=`, `==` for `!=`, ..."""
    if isinstance(node, ast.Compare):
        for new in COMPARISONS[type(node.ops[0])]:
            yield _set(node, ops=[new(), *node.ops[1:]])


def other_operator(node: ast.AST) -> Iterator[Edit]:
    """`-` for `+`, `//` for `/`, ..."""
    if isinstance(node, ast.BinOp | ast.AugAssign):
        for new in OPERATORS.get(type(node.op), ()):
            yield _set(node, op=new())


def other_constant(node: ast.AST) -> Iterator[Edit]:
    """A number one off, the opposite truth value."""
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield _set(node, value=not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield _set(node, value=node.value + 1)
        yield _set(node, value=node.value - 1)


def other_condition(node: ast.AST) -> Iterator[Edit]:
    """`or` for `and`, a condition negated or half of it lost."""
    if isinstance(node, ast.BoolOp):
        yield _set(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
        for index in range(len(node.values)):
            if len(node.values) > 2:
                yield _set(node, values=node.values[:index] + node.values[index + 1 :])
    if isinstance(node, ast.If | ast.IfExp | ast.While):
        yield _set(node, test=ast.UnaryOp(ast.Not(), node.test))


def other_function(node: ast.AST) -> Iterator[Edit]:
    """`max` for `min`, two arguments the wrong way round, an argument lost."""
    if isinstance(node, ast.Name) and node.id in TWINS:
        yield _set(node, id=TWINS[node.id])
    if isinstance(node, ast.Attribute) and node.attr in TWINS:
        yield _set(node, attr=TWINS[node.attr])
    if isinstance(node, ast.Call) and len(node.args) >= 2:
        yield _set(node, args=[node.args[1], node.args[0], *node.args[2:]])
        yield _set(node, args=node.args[:-1])
    if isinstance(node, ast.Call) and node.keywords:
        yield _set(node, keywords=node.keywords[:-1])


def lost_statement(node: ast.AST) -> Iterator[Edit]:
    """A step that is forgotten."""
    for block in _blocks(node):
        for index, statement in enumerate(block):
            if isinstance(statement, ast.AugAssign | ast.Expr | ast.Continue | ast.Break):
                yield _put(block, index, *([] if len(block) > 1 else [ast.Pass()]))
            if isinstance(statement, ast.If) and not statement.orelse and len(block) > 1:
                yield _put(block, index)


def other_slice(node: ast.AST) -> Iterator[Edit]:
    """A bound of a slice lost, an index one off."""
    if isinstance(node, ast.Slice):
        for name in ("lower", "upper", "step"):
            if getattr(node, name) is not None:
                yield _set(node, **{name: None})
    elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Name):
        yield _set(node, slice=ast.BinOp(node.slice, ast.Sub(), ast.Constant(1)))


def mirrored_comparison(node: ast.AST) -> Iterator[Edit]:
    """`b > a` for `a < b`."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in MIRRORED:
        new = MIRRORED[type(node.ops[0])]()
        yield _set(node, ops=[new], left=node.comparators[0], comparators=[node.left])


def spelt_out_assignment(node: ast.AST) -> Iterator[Edit]:
    """`x = x + 1` for `x += 1`."""
    for block in _blocks(node):
        for index, one in enumerate(block):
            if isinstance(one, ast.AugAssign) and isinstance(one.target, ast.Name):
                value = ast.BinOp(ast.Name(one.target.id, ast.Load()), one.op, one.value)
                yield _put(block, index, ast.Assign([one.target], value))


def swapped_branches(node: ast.AST) -> Iterator[Edit]:
    """`if not c: B else: A` for `if c: A else: B`."""
    if isinstance(node, ast.If | ast.IfExp) and node.orelse:
        test = ast.UnaryOp(ast.Not(), node.test)
        yield _set(node, test=test, body=node.orelse, orelse=node.body)


def named_result(node: ast.AST) -> Iterator[Edit]:
    """`answer = x; return answer` for `return x`."""
    for block in _blocks(node):
        for index, one in enumerate(block):
            if isinstance(one, ast.Return) and one.value and not isinstance(one.value, ast.Name | ast.Constant):
                name = ast.Name("answer", ast.Load())
                stored = ast.Assign([ast.Name("answer", ast.Store())], one.value)
                yield _put(block, index, stored, ast.Return(name))


def swapped_operands(node: ast.AST) -> Iterator[Edit]:
    """`b + a` for `a + b`: the same for numbers, not for text."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mult):
        yield _set(node, left=node.right, right=node.left)


def renamed_variable(node: ast.AST) -> Iterator[Edit]:
    """Another name for an argument or a local variable."""
    if not isinstance(node, ast.FunctionDef):
        return
    stored = {one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}
    stored |= {one.arg for one in ast.walk(node) if isinstance(one, ast.arg)}
    used = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)} | stored
    for old in sorted(stored):
        for new in NAMES:
            if new not in used:
                yield _rename(node, old, new)


def _rename(function: ast.FunctionDef, old: str, new: str) -> Edit:
    def edit() -> None:
        for node in ast.walk(function):
            if isinstance(node, ast.Name) and node.id == old:
                node.id = new
            elif isinstance(node, ast.arg) and node.arg == old:
                node.arg = new

    return edit


FAULTS: tuple[Sites, ...] = (
    other_comparison,
    other_operator,
    other_constant,
    other_condition,
    other_function,
    lost_statement,
    other_slice,
)
REWRITES: tuple[Sites, ...] = (
    mirrored_comparison,
    spelt_out_assignment,
    swapped_branches,
    named_result,
    swapped_operands,
    renamed_variable,
)
