"""Only the latest request counts."""

import threading

from actrelax.models.errors import ActrelaxError
from actrelax.simulations.explorer.latest import Latest


def begun_for(request, compute, deliver):
    """Return a computing thread that ends with the test."""
    latest = Latest(compute, deliver)
    request.addfinalizer(latest.end)
    return latest


def test_requests_that_are_overtaken_are_never_computed(request):
    begun, go, done = threading.Event(), threading.Event(), threading.Semaphore(0)
    computed, delivered = [], []

    def compute(number):
        begun.set()
        assert go.wait(10)
        computed.append(number)
        return number * 2

    def deliver(*what):
        delivered.append(what)
        done.release()

    latest = begun_for(request, compute, deliver)
    latest.ask("a", 0)
    assert begun.wait(10)
    for number in range(1, 100):
        latest.ask("a", number)
    latest.ask("b", 1000)
    latest.ask("a", 100)
    go.set()
    assert all(done.acquire(timeout=10) for _ in range(3))
    assert computed == [0, 100, 1000]
    assert delivered == [("a", 0, 0), ("a", 100, 200), ("b", 1000, 2000)]


def test_refusals_are_delivered_and_the_next_request_is_computed(request, capsys):
    done, delivered = threading.Semaphore(0), []

    def compute(number):
        if number < 0:
            raise {-1: ActrelaxError("no."), -2: ValueError("a defect"), -3: MemoryError()}[number]
        return number

    def deliver(key, number, result):
        delivered.append(result)
        done.release()

    latest = begun_for(request, compute, deliver)
    for number in (-1, -2, -3, 5):
        latest.ask("a", number)
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
