"""NNI cannot run in every folder, and says so late or not at all."""

import subprocess
import sys

import pytest

from experiments.nni_adapter.place import ROOT, check_place
from judge.common.errors import UserError

UNSAFE = ["salon(1)", "a&b", "it's", "$x", "a;b", "a\nb", "a`b", "a b", "a*b", "a?", "[a]", "a|b", "a<b",
          "a>b", 'a"b', "a\\b", "a#b", "{a,b}", "a:b", "a!b", "a\tb", "a^b"]  # fmt: skip
SAFE = ["salon", "sälon", "写真", "a-b_c.d", "a+b", "a=b", "a,b", "a@b", "a%b", "a~b"]


@pytest.mark.parametrize("name", UNSAFE)
def test_a_folder_that_the_shell_would_read_otherwise_is_refused_in_one_line(name):
    with pytest.raises(UserError, match="NNI cannot run in a path with ") as error:
        check_place("trialCodeDirectory", f"/home/{name}/salon")
    assert "\n" not in str(error.value)


def test_in_folders_that_are_not_refused_nnis_script_of_a_trial_runs(tmp_path):
    """Its lines as in training_service/local/localTrainingService.js and common/util.js."""
    for name in SAFE:
        folder = tmp_path / name
        folder.mkdir()
        check_place("", folder)
        script = (f"export NNI_CODE_DIR='{folder}'\ncd $NNI_CODE_DIR\n"
                  f"eval 'pwd' 1>{folder}/stdout 2>{folder}/stderr\n"
                  f"echo $? `date +%s%3N` >'{folder}/state'\n")  # fmt: skip
        subprocess.run(["bash", "-c", script], check=True)
        assert (folder / "stdout").read_text() == f"{folder}\n"
        assert (folder / "state").read_text().startswith("0 ")


def test_make_asks_before_it_installs_and_needs_no_package_for_that():
    command = [sys.executable, "-S", "-m", "experiments.nni_adapter.place"]
    assert subprocess.run(command, cwd=ROOT).returncode == 0
    makefile = (ROOT / "Makefile").read_text()
    assert makefile.index("experiments.nni_adapter.place") < makefile.index("-m venv $(VENV)\n")
