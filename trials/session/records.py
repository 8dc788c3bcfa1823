"""The files that describe a trial: run.json, what it is and how it ended, and stats.jsonl, its reports."""

import hashlib
import json
import platform
import shutil
import subprocess
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from judge.common.constants import DATA, ROOT
from judge.common.errors import UserError
from judge.common.files import FileLock, as_user_error, atomic_write, is_abandoned
from judge.common.schema import NUMBER, matches

if TYPE_CHECKING:  # records are read where nothing is trained, without torch
    import torch

RECORD = {  # the form of run.json
    "system?": str, "status?": str, "reason?": str, "seconds?": NUMBER,
    "schedule?": {"steps": int, "until?": int},
    "score?": {"default": NUMBER, "error?": NUMBER},
    "settings?": {"data?": str, "judge?": str, "size?": str, "seed?": int, "budget?": NUMBER},
    "data?": {"name": str, "stand_in": bool},
    "judge?": {"file": str, "data?": str, "sha256?": str, "auc?": NUMBER, "accuracy?": NUMBER},
    "device?": str, "peak_memory?": int,
    "gpu?": {"name": str, "memory": int, "visible?": str, "power_limit?": NUMBER},
}  # fmt: skip
REPORT = {  # the form of a line of stats.jsonl
    "step": int, "seconds?": NUMBER, "scoring_seconds?": NUMBER,
    "score": {"default": NUMBER, "*": NUMBER}, "losses?": {"*": NUMBER}, "early?": bool,
}  # fmt: skip
UNHASHED = ("budget", "reports", "graphs", "compile")  # settings that do not change what a step computes
LOCK = ".lock"  # in the folder of a trial that runs
PATHS = ("data", "judge", "score", "content", "style")  # settings that may be paths
RECORDED_VERSIONS = ("torch", "torchvision", "torchmetrics", "numpy", "nni")


def write_json(file: Path, content: dict) -> None:
    """Write `content` to `file` as indented JSON."""
    text = json.dumps(content, indent=2, default=str)
    atomic_write(file, lambda part: part.write_text(text + "\n"))


def read_json(file: Path) -> dict:
    """Return the JSON object in `file`; an empty one if there is none."""
    with suppress(OSError):
        return _parse_object(file.read_bytes())
    return {}


def _parse_object(text: bytes) -> dict:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):  # RecursionError: brackets nested too deep
        return {}
    return content if isinstance(content, dict) else {}


def read_record(folder: Path) -> dict:
    """Return the run.json of the trial in `folder`; an empty dict if there is none or its form is wrong."""
    content = read_json(folder / "run.json")
    return content if matches(content, RECORD) else {}


def read_lines(file: Path) -> list[dict]:
    """Return the reports in a stats.jsonl, up to the first damaged line: a crash may cut the last one off."""
    lines = file.read_bytes().splitlines() if file.is_file() else []
    return list(takewhile(lambda report: matches(report, REPORT), map(_parse_object, lines)))


def was_killed(folder: Path) -> bool:
    """Return whether the process of the trial in `folder` was killed."""
    return is_abandoned(folder / LOCK)


def settings_hash(settings: dict) -> str:
    """Return a short hash of the settings that decide what a step computes: a larger budget continues the
    same trial."""
    kept = {name: value for name, value in settings.items() if name not in UNHASHED}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()[:8]


def recorded_settings(Settings: type, record: dict) -> dict:
    """Return the settings in a run.json, with `Settings.OLDER`, values for fields that older records lack."""
    return getattr(Settings, "OLDER", {}) | (record.get("settings") or {})


def from_root(settings: dict) -> dict:
    """Return recorded settings with paths that hold in any folder: those of a search are relative to the root
    of the repository."""
    def locate(value: str) -> str:
        here, places = (Path(), DATA), (ROOT, ROOT / DATA)
        if any((place / value).exists() for place in here):
            return value
        return next((str(place / value) for place in places if (place / value).exists()), value)

    return settings | {name: locate(settings[name]) for name in PATHS if isinstance(settings.get(name), str)}


def settings_here(Settings: type, record: dict) -> dict:
    """Return the settings in a run.json, as `recorded_settings`, with paths that hold in any folder."""
    return from_root(recorded_settings(Settings, record))


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that the figures depend on."""
    installed = {"python": platform.python_version()}
    for package in RECORDED_VERSIONS:
        with suppress(PackageNotFoundError):  # NNI, for a trial that is started by hand
            installed[package] = version(package)
    return installed


def git_commit() -> str | None:
    """Return the commit of this code, with `-dirty` if files were changed; None outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    with suppress(OSError, subprocess.TimeoutExpired):  # git is not installed, or waits
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=60)
        return done.stdout.strip() or None


def same_input(a: Any, b: dict) -> bool:
    """Return whether two records, of the data or the judge for example, are of the same, wherever it is."""
    return isinstance(a, dict) and a | {"file": None} == b | {"file": None}


class Record:
    """The locked folder of a trial, and `facts`, the content of its run.json.

    Nothing is written before `begin`: the folder may hold a trial that has finished, and what is refused must
    not change it.

    Raises UserError if the folder cannot be written, is in use, or holds another trial or another run.json.
    """

    def __init__(self, folder: Path, system: str, settings: Any, parameters: dict, device: "torch.device"):
        import torch

        from judge.common.device import device_name, gpu_facts, tf32

        self.folder, self._settings, self._inputs = folder, asdict(settings), {}
        self._Settings = type(settings)
        self._begun = False
        # A trial whose NNI manager was killed may still write here when the search is resumed.
        self._lock = FileLock(folder / LOCK, f"training in {folder}")
        try:
            self._previous = self._read_previous()
        except UserError:
            self.close()
            raise
        self.facts = {
            "system": system, "parameters": parameters or self._previous.get("parameters", {}),
            "settings": self._settings, "status": "running", "reason": None, "score": None,
            "device": device_name(device), "gpu": gpu_facts(device), "tf32": tf32(device),
            "threads": torch.get_num_threads(), "versions": versions(), "commit": git_commit(),
        }  # fmt: skip

    def _read_previous(self) -> dict:
        """Return the run.json of an earlier run here."""
        file = self.folder / "run.json"
        previous = read_json(file)
        if not matches(previous, {"settings?": {}, "parameters?": {}}):
            raise UserError(f"{file} was not written by a trial: choose another --out")
        same = not previous.get("settings") or self._has_settings(previous)
        trained = (self.folder / "checkpoint.pt").exists() or read_lines(self.folder / "stats.jsonl")
        if trained and not same:
            theirs, ours = settings_here(self._Settings, previous), from_root(self._settings)
            changed = ", ".join(name for name in theirs | ours if name not in UNHASHED
                                and theirs.get(name) != ours.get(name))
            raise UserError(f"{self.folder} holds a trial with another {changed}: choose another --out")
        if trained:
            return previous
        # The earlier run failed before its first report, so there is nothing to protect or to continue.
        return {"parameters": previous.get("parameters") or {}} if same else {}

    @property
    def final_score(self) -> dict | None:
        """The score of an earlier run that has finished here, until this one begins; else None."""
        finished = not self._begun and self._previous.get("status") == "finished"
        return self._previous.get("score") if finished else None

    def begin(self) -> None:
        """Write run.json, now and at each update, and remove the temporary files of a killed run."""
        self._begun = True
        with as_user_error(self.folder):
            for part in self.folder.glob("*.part"):
                part.unlink()
        self.update()

    def update(self, **facts: Any) -> None:
        """Add `facts`, and write run.json if this run has begun. Raises UserError if it cannot be written."""
        self.facts |= facts
        if self._begun:
            with as_user_error(self.folder):
                write_json(self.folder / "run.json", self.facts)

    def add_inputs(self, **inputs: dict) -> None:
        """Add facts of the data, the judge and so on. Raises UserError if an earlier run had other inputs."""
        for name, facts in inputs.items():
            if not same_input(self._previous.get(name, facts), facts):
                raise UserError(f"{self.folder} was trained with another {name}: choose another --out")
        self._inputs = inputs
        self.update(**inputs)

    def find_earlier(self, earlier: Path) -> Path | None:
        """Return the folder below `earlier` of the run that has trained this trial longest; None without."""
        folders = {file.parent for file in earlier.rglob("checkpoint.pt")}
        runs = [(len(read_lines(folder / "stats.jsonl")), folder)
                for folder in folders if self._is_same_trial(read_record(folder))]  # fmt: skip
        return max(runs)[1] if runs else None

    def copy_earlier(self, folder: Path) -> None:
        """Copy the files of the run in `folder`, except its run.json and stats.jsonl; its checkpoint last."""
        with as_user_error(self.folder):
            for name in ("samples", "paintings", "tensorboard"):
                if (folder / name).is_dir():
                    shutil.copytree(folder / name, self.folder / name, dirs_exist_ok=True)
            atomic_write(self.folder / "checkpoint.pt", partial(shutil.copy2, folder / "checkpoint.pt"))

    def _is_same_trial(self, record: dict) -> bool:
        """Return whether `record` has the same system, settings and inputs."""
        return (record.get("system") == self.facts["system"] and self._has_settings(record)
                and all(same_input(record.get(name), facts) for name, facts in self._inputs.items()))

    def _has_settings(self, record: dict) -> bool:
        """Return whether a trial of these settings would take the same steps as that of `record`."""
        theirs, ours = settings_here(self._Settings, record), from_root(self._settings)
        return settings_hash(theirs) == settings_hash(ours)

    def close(self) -> None:
        """Unlock the folder."""
        self._lock.close()
