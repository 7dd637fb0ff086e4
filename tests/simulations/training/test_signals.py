"""The first signal is recorded, the second takes effect, and handlers are restored afterwards."""

import os
import signal

import pytest

from actrelax.simulations.training.signals import stopping_cleanly


@pytest.fixture(autouse=True)
def usual_handler():
    """Install the signal handlers of a foreground program."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_first_signal_is_collected_and_the_second_acts_at_once():
    before = signal.getsignal(signal.SIGINT)
    with stopping_cleanly() as stop:
        assert stop.signal_number == 0
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal_number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_patiently_the_second_does_nothing():
    with stopping_cleanly(patiently=True) as stop:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
            os.kill(os.getpid(), number)
            assert stop.signal_number == number


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with stopping_cleanly():
        assert signal.getsignal(signal.SIGTERM) is not before[1]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_what_the_caller_ignores_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stopping_cleanly() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.signal_number == 0
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.signal_number == signal.SIGTERM
    finally:
        signal.signal(signal.SIGINT, before)
