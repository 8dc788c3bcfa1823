"""Commands run in this process, as in the tests of trials."""

from tests.trials.conftest import command  # noqa: F401 (a fixture)
