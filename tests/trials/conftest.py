"""What tests of trials share."""

import signal

import pytest


@pytest.fixture(autouse=True)
def signals():
    """Trials take signals over; give them back."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)
