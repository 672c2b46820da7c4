from __future__ import annotations

import threading

import pytest

from melanoma_dist.input.ahead import Ahead


def test_results_come_in_order_from_another_thread() -> None:
    threads: set[int] = set()

    def square(number: int) -> int:
        threads.add(threading.get_ident())
        return number**2

    ahead = Ahead(square)
    assert [ahead(number) for number in range(6)] == [number**2 for number in range(6)]
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_the_next_result_is_computed_before_it_is_asked_for() -> None:
    computed = threading.Semaphore(0)

    def count(number: int) -> int:
        computed.release()
        return number

    ahead = Ahead(count)
    ahead(0)
    for _ in range(3):  # 0, and two more that nobody asked for
        assert computed.acquire(timeout=10)


def test_an_error_is_raised_at_its_own_number() -> None:
    def divide(number: int) -> float:
        return 1 / (number - 1)

    ahead = Ahead(divide)
    assert ahead(0) == -1
    with pytest.raises(ZeroDivisionError):
        ahead(1)
    assert ahead(2) == 1


def test_a_restart_forgets_what_was_computed_ahead() -> None:
    base = 0

    def add(number: int) -> int:
        if base == 0 and number > 2:
            raise IndexError
        return base + number

    ahead = Ahead(add)
    assert [ahead(number) for number in range(3)] == [0, 1, 2]
    base = 10
    ahead.restart()
    assert [ahead(number) for number in range(4)] == [10, 11, 12, 13]
