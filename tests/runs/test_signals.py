"""Signals: noted, not died of; left to whoever listens already; given back afterwards where none came."""

from __future__ import annotations

import os
import signal
from threading import Thread

import pytest

from diffusion_priors.runs.signals import CODES, Listener

NUMBERS = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]


@pytest.fixture(autouse=True)
def handlers():
    """As in a fresh process, and afterwards as before."""
    before = {number: signal.getsignal(number) for number in NUMBERS}
    for number in NUMBERS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def now() -> list:
    return [signal.getsignal(number) for number in NUMBERS]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_is_noted_and_the_process_lives(number):
    listener = Listener()
    with listener.listening():
        assert listener.told is None
        os.kill(os.getpid(), number)
        assert listener.told == number.name and CODES[listener.told] == 128 + number
    assert now() == [signal.SIG_IGN, signal.default_int_handler, signal.SIG_IGN]


def test_on_its_way_out_the_scheduler_is_not_listened_to_again():
    """It would die of srun's SIGTERM and so look cancelled, where it was told to make room and is to be requeued."""
    with Listener().listening():
        os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGTERM)  # ends nothing
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_a_second_ctrl_c_is_one():
    listener = Listener()
    with pytest.raises(KeyboardInterrupt), listener.listening():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_after_the_scheduler_is_no_second_one():
    listener = Listener()
    with listener.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert listener.told == "SIGINT"


def test_the_schedulers_first_word_is_the_reason():
    """A requeued job must not look like a cancelled one where srun ends its slower processes."""
    listener = Listener()
    with listener.listening():
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert listener.told == "SIGUSR1"


def test_a_signal_that_somebody_listens_to_is_left_to_them():
    """As submitit does to SIGUSR1 and SIGTERM."""
    heard = []
    signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    listener = Listener()
    with listener.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard == [signal.SIGTERM] and listener.told is None
        os.kill(os.getpid(), signal.SIGUSR1)
        assert listener.told == "SIGUSR1"


def test_handlers_are_given_back_where_the_run_fails():
    before = now()
    with pytest.raises(ValueError, match="the run failed"), Listener().listening():
        raise ValueError("the run failed")
    assert now() == before


def test_outside_the_main_thread_nothing_is_touched():
    """Python lets the main thread alone set handlers."""
    seen = []

    def elsewhere() -> None:
        with Listener().listening():
            seen.append(now())

    thread = Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [now()]
