"""Changes that `preload.js` makes to NNI's manager."""

import os
import signal
import subprocess

import nni_node
import pytest

from experiments.nni_adapter.manager import MANAGER, PRELOAD, STARTER


def node(code: str) -> list[str]:
    """Return the lines that the code prints."""
    command = [f"{nni_node.__path__[0]}/node", "--require", PRELOAD, "-e", code]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    return process.stdout.splitlines()


FORMS = [
    "0", "0, () => {}", "'0'", "0, '0.0.0.0'", "{port: 0, host: '::'}", "0, 16", "{port: 0}", "", "() => {}",
    "0, undefined, 16, () => {}", "null", "null, () => {}",
]  # fmt: skip
LISTEN = """
{ const s = require('http').createServer();
  s.listen(%s); s.on('listening', () => { console.log(s.address().address); s.close(); }) }
"""


def test_whatever_way_a_server_is_told_to_listen_it_listens_on_loopback():
    assert node("".join(LISTEN % form for form in FORMS)) == ["127.0.0.1"] * len(FORMS)


def test_a_tuner_is_not_given_up_while_it_lives_and_other_timers_are_nodes_own():
    assert node("""
        const tuner = require('child_process').spawn('sleep 1.5; exit # ', ['--exp_params'], { shell: true });
        tuner.on('exit', () => console.log('the tuner has ended'));
        setTimeout(() => console.log('Tuner did not connect'), 100);
        setTimeout((word) => console.log(word), 200, 'another timer');
        require('util').promisify(setTimeout)(10, 'a promise').then(console.log);
    """) == ["a promise", "another timer", "the tuner has ended", "Tuner did not connect"]


@pytest.mark.parametrize("reaped", [True, False])
def test_the_manager_ends_with_the_process_that_started_it(reaped, tmp_path):
    """In a container an ended process may stay a zombie."""
    starter = subprocess.Popen(["sleep", "1000"])
    command = [f"{nni_node.__path__[0]}/node", "--require", PRELOAD, "-e", "setInterval(() => {}, 1000)",
               "--", MANAGER, "x", "--experiments-directory", tmp_path]
    manager = subprocess.Popen(command, env=os.environ | {STARTER: str(starter.pid)})
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            manager.wait(3)
        starter.kill()
        if reaped:
            starter.wait()
        assert manager.wait(300) == -signal.SIGTERM
    finally:
        for process in (manager, starter):
            process.kill()
            process.wait()
