"""Two remedies for safety-gymnasium 0.4.0, applied by ``dsrl_simulator.py``: one for Python 3.11, one for slow resets.

Nothing of the physics changes: observations, rewards and costs are the same with and without them (tested).
"""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Iterator

import numpy as np


class HashableArray(np.ndarray):
    """An array that dataclasses take for a default value: Python 3.11 refuses every default without a hash."""

    __hash__ = object.__hash__  # type: ignore[assignment]  # numpy says that no array has one


def make_defaults_hashable() -> None:
    """Let the object classes of safety-gymnasium be defined on Python 3.11 and later; call before a task is imported.

    Their dataclass fields have the arrays of two tables for defaults ("mutable default <class 'numpy.ndarray'> for
    field color is not allowed"). The arrays are replaced by views that have a hash. Python 3.10 needs nothing.
    """
    if sys.version_info < (3, 11):
        return
    from safety_gymnasium.assets.color import COLOR
    from safety_gymnasium.assets.group import GROUP

    for table in (COLOR, GROUP):
        for name, value in table.items():
            if isinstance(value, np.ndarray):
                table[name] = value.view(HashableArray)


@contextlib.contextmanager
def without_textures() -> Iterator[None]:
    """Resets of navigation tasks inside this block build their world without textures: 1 s becomes 0.01 s.

    safety-gymnasium writes a MuJoCo XML and compiles it at every reset, and the compiler decodes a large skybox image
    each time. Textures matter only where something is drawn.
    """
    import safety_gymnasium.world as world

    xmltodict = world.xmltodict

    def unparse(document: dict, **options) -> str:
        _drop_textures(document)
        return xmltodict.unparse(document, **options)

    world.xmltodict = types.SimpleNamespace(parse=xmltodict.parse, unparse=unparse)
    try:
        yield
    finally:
        world.xmltodict = xmltodict


def _drop_textures(node: object) -> None:
    """Remove ``<texture>`` elements and ``texture="..."`` attributes from an XML document in xmltodict's form."""
    if isinstance(node, dict):
        node.pop("texture", None)
        node.pop("@texture", None)
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _drop_textures(child)
