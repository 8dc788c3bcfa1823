"""The forms of what trials and NNI store as JSON: a file may be damaged, or a stranger's.

A form is a type, or for an object a form by key. A key that ends in `?` may be missing or null; `*` is
every key. What no form names is not read by name.
"""

from typing import Any

NUMBER = (int, float)

RECORD = {  # run.json
    "system?": str, "status?": str, "reason?": str, "seconds?": NUMBER, "schedule?": {"steps": int},
    "settings?": {"data?": str, "judge?": str, "size?": str, "seed?": int, "budget?": NUMBER},
    "data?": {"name": str, "stand_in": bool},
    "judge?": {"file": str, "data?": str, "sha256?": str, "auc?": NUMBER, "accuracy?": NUMBER},
}  # fmt: skip
REPORT = {  # a line of stats.jsonl
    "step": int, "seconds?": NUMBER, "scoring_seconds?": NUMBER,
    "score": {"default": NUMBER, "*": NUMBER}, "losses?": {"*": NUMBER},
}  # fmt: skip
CONFIG = {  # an experiment's, as NNI stores it
    "trialCommand": str, "experimentName?": str, "maxTrialNumber?": int, "experimentWorkingDirectory?": str,
    "tuner?": {"className?": str, "classArgs?": {"resumes?": str}}, "trainingService?": {},
}  # fmt: skip
# What the tuner proposes to a trial. No setting of ours is a list or an object.
PROPOSAL = {"parameters": {"*": (str, int, float, bool)}}


def matches(value: Any, form: Any) -> bool:
    """Whether `value`, read from JSON, has that form."""
    if isinstance(form, dict):
        return isinstance(value, dict) and all(_has(value, key, of) for key, of in form.items())
    return type(value) in (form if isinstance(form, tuple) else (form,))  # a bool is no int here


def _has(value: dict, key: str, form: Any) -> bool:
    if key == "*":
        return all(matches(part, form) for part in value.values())
    if key.endswith("?"):
        return value.get(key[:-1]) is None or matches(value[key[:-1]], form)
    return key in value and matches(value[key], form)
