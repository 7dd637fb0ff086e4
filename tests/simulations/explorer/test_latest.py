"""Only the latest request counts."""

import threading

from actrelax.models.errors import ActrelaxError
from actrelax.simulations.explorer.latest import Latest


def test_requests_that_are_overtaken_are_never_computed():
    begun, go, done = threading.Event(), threading.Event(), threading.Semaphore(0)
    computed, delivered = [], []

    def compute(request):
        begun.set()
        assert go.wait(10)
        computed.append(request)
        return request * 2

    def deliver(*what):
        delivered.append(what)
        done.release()

    latest = Latest(compute, deliver)
    latest.ask("a", 0)
    assert begun.wait(10)
    for request in range(1, 100):
        latest.ask("a", request)
    latest.ask("b", 1000)
    latest.ask("a", 100)
    go.set()
    assert all(done.acquire(timeout=10) for _ in range(3))
    assert computed == [0, 100, 1000]
    assert delivered == [("a", 0, 0), ("a", 100, 200), ("b", 1000, 2000)]
    latest.end()


def test_refusals_are_delivered_and_the_next_request_is_computed(capsys):
    done, delivered = threading.Semaphore(0), []

    def compute(request):
        if request < 0:
            raise {-1: ActrelaxError("no."), -2: ValueError("a defect"), -3: MemoryError()}[request]
        return request

    def deliver(key, request, result):
        delivered.append(result)
        done.release()

    latest = Latest(compute, deliver)
    for request in (-1, -2, -3, 5):
        latest.ask("a", request)
        assert done.acquire(timeout=10)
    assert [str(each) for each in delivered] == [
        "no.",
        "this failed unexpectedly, ValueError: a defect",
        "not enough memory: choose a smaller network.",
        "5",
    ]
    assert "Traceback" in capsys.readouterr().err
    threads = threading.active_count()
    latest.end()
    latest.ask("a", 7)
    for thread in threading.enumerate():
        if thread.name.endswith("(_work)"):
            thread.join(10)
    assert threading.active_count() == threads - 1
    assert len(delivered) == 4
