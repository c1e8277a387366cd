"""What holds for every test, wherever the run was started from."""

import signal


def pytest_configure():
    # A shell's background job and nohup ignore signals, children inherit it, and the program
    # respects it: tests that send these signals need them as a terminal gives them.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
