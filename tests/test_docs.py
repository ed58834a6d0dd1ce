"""Docstrings of public functions say what they need to."""

from __future__ import annotations

import importlib
import inspect

import pytest


@pytest.mark.parametrize("room", ["pp", "tl", "pl"])
def test_user_functions_follow_the_contract(room: str) -> None:
    module = importlib.import_module(f"sst.{room}")
    for name in module.__all__:
        function = getattr(module, name)
        if not inspect.isfunction(function):
            continue
        parameters = inspect.signature(function).parameters.values()
        positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        assert len(positional) <= 3, f"{room}.{name}: more than three positional parameters"
        assert not any(p.kind is p.VAR_KEYWORD for p in parameters), f"{room}.{name}: **kwargs"
        doc = inspect.getdoc(function) or ""
        assert "Parameters" in doc, f"{room}.{name}: no Parameters"
        assert "Returns" in doc, f"{room}.{name}: no Returns"
        undocumented = [p.name for p in parameters if f"\n{p.name}" not in doc and f", {p.name}" not in doc]
        assert not undocumented, f"{room}.{name}: not in the docstring: {undocumented}"
