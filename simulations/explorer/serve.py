"""A page on this machine alone, until Ctrl-C."""

from __future__ import annotations

import signal
import socket
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from actrelax.models.errors import ActrelaxError

HOST = "127.0.0.1"


def free_port(asked: int | None) -> int:
    """Return the port that was asked for, or any that is free.

    Raises
    ------
    ActrelaxError
        If it is taken, or no port for this user.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, asked or 0))
        except OSError as error:
            raise ActrelaxError(
                f"can't serve on port {asked}: {error.strerror}; give another --port, or leave --port out."
            ) from error
        return int(probe.getsockname()[1])


def serve(make: Callable[[Any], object], port: int, *, browser: bool, said: Callable[[str], None]) -> None:
    """Serve pages on `HOST` until Ctrl-C, each made by a call with its Bokeh document.

    Parameters
    ----------
    make : callable
    port : int
    browser : bool
        Open the page in the user's browser.
    said : callable
        Called with the page's address once it can be opened.
    """
    from bokeh.application import Application
    from bokeh.application.handlers.function import FunctionHandler
    from bokeh.server.server import Server

    application = Application(FunctionHandler(make, trap_exceptions=False))
    server = Server({"/": application}, address=HOST, port=port, allow_websocket_origin=[f"{HOST}:{port}"])
    address = f"http://{HOST}:{port}/"
    server.start()
    try:
        with stopping(server.io_loop):
            said(address)
            if browser:
                server.io_loop.call_later(0, webbrowser.open, address)
            server.io_loop.start()
    finally:
        server.stop()


@contextmanager
def stopping(loop: Any) -> Iterator[None]:
    """Stop a Tornado loop at the first Ctrl-C inside the block; the second one acts at once.

    A KeyboardInterrupt would be lost where it is raised in a callback that ignores exceptions.
    """
    earlier = signal.getsignal(signal.SIGINT)

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, earlier)
        loop.asyncio_loop.call_soon_threadsafe(loop.stop)

    if earlier is signal.SIG_IGN:  # as in the background jobs of a shell
        yield
        return
    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, earlier)
