"""Experiment files for tests: the shipped one, changed."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture
def experiment(tmp_path, sample_data, judge_file) -> Callable[..., Path]:
    """Writes cyclegan.yml with changes, on the small sample and the untrained judge."""

    def write(space=None, program: str = "trials.cyclegan", options: str = "", **changes) -> Path:
        config = yaml.safe_load((ROOT / "experiments/cyclegan.yml").read_text())
        inputs = f"--data {sample_data} --judge {judge_file} --size sketch --threads 1"
        config |= {
            "trialCodeDirectory": str(ROOT), "experimentWorkingDirectory": str(tmp_path / "runs"),
            "searchSpaceFile": str(ROOT / "search_spaces/cyclegan.json"),
            "trialCommand": f"python -m {program} {inputs} {options}",
        }  # fmt: skip
        config["tuner"]["codeDirectory"] = str(ROOT)
        (tmp_path / "runs").mkdir(exist_ok=True)
        if space is not None:
            (tmp_path / "space.json").write_text(json.dumps(space))
            config["searchSpaceFile"] = str(tmp_path / "space.json")
        for key, value in changes.items():
            config[key] = config[key] | value if isinstance(value, dict) else value
        file = tmp_path / "experiment.yml"
        file.write_text(yaml.safe_dump(config))
        return file

    return write
