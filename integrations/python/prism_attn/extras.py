"""Packages that only parts of this one need, and how to get them."""

from __future__ import annotations


def missing(error: ModuleNotFoundError, extra: str) -> ImportError:
    """What to raise where an import of the packages of an extra (pyproject.toml) failed."""
    return ImportError(f"{error}; what this needs comes with: pip install './integrations/python[{extra}]'")
