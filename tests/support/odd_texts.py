"""Strategies of hypothesis for texts that people and programs get wrong: YAML, and trees of JSON."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

_PIECES = (
    *(
        "a",
        "b: ",
        ": ",
        "- ",
        "? ",
        "| ",
        "> ",
        "\n",
        "\n  ",
        "\n\t",
        " ",
        "#",
        "'",
        '"',
        "%",
        "@",
        "`",
        "=",
        "<<",
    ),
    *(
        "[",
        "]",
        "{",
        "}",
        ",",
        "&x ",
        "*x",
        "&x",
        "*y",
        "!!int ",
        "!!str ",
        "!!bool ",
        "!!set ",
        "!!map ",
        "!z ",
    ),
    *(
        "!!python/object/apply:os.getcwd []",
        "---",
        "...",
        "null",
        "~",
        "true",
        "no",
        "010",
        "1:30",
        "1_0",
        ".nan",
    ),
    *(
        "-.inf",
        "1e999",
        "9" * 500,
        "2026-01-01",
        "\\",
        "\\x00",
        "\\ud800",
        "\ufeff",
        "\x85",
        "\u2028",
        "\x1b",
        "\0",
    ),
)


def yaml_texts() -> st.SearchStrategy[str]:
    """Texts of pieces that mean something in YAML, in any order."""
    return st.lists(st.sampled_from(_PIECES), max_size=25).map("".join)


def odd_values() -> st.SearchStrategy[Any]:
    """Values of JSON that stand where another type is meant, or are too large."""
    return st.one_of(
        st.none(),
        st.booleans(),
        st.sampled_from(
            [
                "",
                "\x1b[31mred",
                "a\nb",
                "\0",
                "\ud800",
                "../..",
                "nan",
                "x" * 300,
                0,
                -1,
                2**63,
                1e308,
                5e-324,
            ]
        ),
        st.sampled_from([[], {}, [[]], [None], {"": None}, {"a": {"b": []}}, [1, "a", {}]]),
    )


def places_of(tree: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path to every node of a tree of JSON, as keys and positions; that of the tree itself is empty."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [above, *(place for key, value in items for place in places_of(value, (*above, key)))]


def with_value_at(tree: Any, place: tuple[Any, ...], value: Any) -> Any:
    """The tree with another value at a place; the tree itself stays as it is."""
    if not place:
        return value
    changed: Any = dict(tree) if isinstance(tree, dict) else list(tree)
    changed[place[0]] = with_value_at(tree[place[0]], place[1:], value)
    return changed
