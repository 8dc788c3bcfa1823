"""Checks that data read from JSON has the expected form.

A form is a type, a tuple of types, or for an object a dict of forms by key. A key that ends in `?` may be
missing or null; `*` stands for every key. Further keys are allowed.
"""

from typing import Any

NUMBER = (int, float)


def matches(value: Any, form: Any) -> bool:
    """Return whether `value`, read from JSON, has that form."""
    if isinstance(form, dict):
        return isinstance(value, dict) and all(_has(value, key, part) for key, part in form.items())
    return type(value) in (form if isinstance(form, tuple) else (form,))  # a bool is no int here


def _has(value: dict, key: str, form: Any) -> bool:
    if key == "*":
        return all(matches(part, form) for part in value.values())
    if key.endswith("?"):
        return value.get(key[:-1]) is None or matches(value[key[:-1]], form)
    return key in value and matches(value[key], form)
