"""What NNI's manager does otherwise with `preload.js` before it."""

import subprocess

import nni_node
import pytest

from experiments.nni_adapter.manager import PRELOAD


def node(code: str) -> list[str]:
    """The lines that the code prints."""
    command = [f"{nni_node.__path__[0]}/node", "--require", PRELOAD, "-e", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


FORMS = {
    "a port": "s.listen(0)",
    "a port and a callback": "s.listen(0, () => {})", "a port as text": "s.listen('0')",
    "every interface": "s.listen(0, '0.0.0.0')", "by name": "s.listen({port: 0, host: '::'})",
    "a port and a queue": "s.listen(0, 16)", "options": "s.listen({port: 0})", "nothing": "s.listen()",
    "only a callback": "s.listen(() => {})", "an empty host": "s.listen(0, undefined, 16, () => {})",
    "null": "s.listen(null)", "null and a callback": "s.listen(null, () => {})",
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_whatever_way_a_server_is_told_to_listen_it_listens_on_loopback(form):
    said = node(
        f"const s = require('http').createServer(); {FORMS[form]}; "
        "s.on('listening', () => { console.log(s.address().address); process.exit(); })"
    )
    assert said == ["127.0.0.1"]


TUNER = """
const tuner = require('child_process').spawn('sleep 1.5; exit # ', ['--exp_params'], { shell: true });
tuner.on('exit', () => console.log('the tuner has ended'));
setTimeout(() => console.log('Tuner did not connect'), 100);
setTimeout((word) => console.log(word), 200, 'another timer');
"""


def test_a_tuner_is_not_given_up_while_it_lives():
    assert node(TUNER) == ["another timer", "the tuner has ended", "Tuner did not connect"]


def test_other_timers_are_nodes_own():
    assert node("require('util').promisify(setTimeout)(10, 'kept').then(console.log)") == ["kept"]
