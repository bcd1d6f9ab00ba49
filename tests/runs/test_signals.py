"""Signals are recorded and do not end the process; handlers that exist are left alone, and ours are removed afterwards."""

from __future__ import annotations

import os
import signal
from threading import Thread

import pytest

from diffusion_priors.runs.exit_codes import OF_SIGNAL, STOPPED
from diffusion_priors.runs.signals import Listener

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
def test_a_signal_is_recorded_and_the_process_lives(number):
    listener = Listener()
    with listener.listening():
        assert listener.received is None
        os.kill(os.getpid(), number)
        assert listener.received == number.name and OF_SIGNAL[listener.received] == 128 + number in STOPPED
    assert now() == [signal.SIG_IGN, signal.default_int_handler, signal.SIG_IGN]


def test_signals_of_the_scheduler_are_ignored_while_the_process_ends():
    """srun's SIGTERM would end it as if it were cancelled, but a job that made room is to be requeued."""
    with Listener().listening():
        os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGTERM)  # ends nothing
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_a_second_ctrl_c_raises_keyboard_interrupt():
    listener = Listener()
    with pytest.raises(KeyboardInterrupt), listener.listening():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_after_a_signal_of_the_scheduler_is_the_first_one():
    listener = Listener()
    with listener.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert listener.received == "SIGINT"


def test_the_first_signal_of_the_scheduler_is_recorded():
    """A job to be requeued must not look cancelled because srun ends its slower processes."""
    listener = Listener()
    with listener.listening():
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert listener.received == "SIGUSR1"


def test_a_signal_that_has_a_handler_is_left_to_it():
    """submitit handles SIGUSR1 and SIGTERM."""
    heard = []
    signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    listener = Listener()
    with listener.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard == [signal.SIGTERM] and listener.received is None
        os.kill(os.getpid(), signal.SIGUSR1)
        assert listener.received == "SIGUSR1"


def test_the_old_handlers_are_back_after_an_error():
    before = now()
    with pytest.raises(ValueError, match="the run failed"), Listener().listening():
        raise ValueError("the run failed")
    assert now() == before


def test_outside_the_main_thread_no_handler_is_set():
    """Python lets only the main thread set handlers."""
    seen = []

    def elsewhere() -> None:
        with Listener().listening():
            seen.append(now())

    thread = Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [now()]
