"""The clock, on a device made up here: its work goes on after the call that asked for it returned."""

import pytest

from fixtures.timings import clock

torch = pytest.importorskip("torch")
WORK = 0.003  # seconds that one operation takes the device


class Device:
    """Stands in for an accelerator: it takes on work at once, and is done when it is waited for."""

    def __init__(self) -> None:
        self.now = self.done = 0.0

    def work(self) -> None:
        """Take on one operation."""
        self.done = max(self.now, self.done) + WORK

    def synchronize(self) -> None:
        """Wait until all is done."""
        self.now = max(self.now, self.done)

    def event(self) -> "Event":
        """Make an event of this device."""
        return Event(self)


class Event:
    """Stands in for an event among a device's work."""

    def __init__(self, device: Device) -> None:
        self.device = device

    def record(self) -> None:
        """Stand behind what the device has taken on by now."""
        self.at = max(self.device.now, self.device.done)

    def synchronize(self) -> None:
        """Wait for the device."""
        self.device.synchronize()

    def elapsed_time(self, end: "Event") -> float:
        """Milliseconds to a later event."""
        if self.device.now < end.at:
            raise RuntimeError("the device has not come to this event yet")
        return 1000 * (end.at - self.at)


def test_the_clock_waits_for_the_device(monkeypatch):
    """Between two readings lies the device's work, and not only the call that asked for it."""
    device = Device()
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "synchronize", device.synchronize)
    monkeypatch.setattr("timeit.default_timer", lambda: device.now)
    began = clock.synchronized()
    device.work()
    assert device.now == began
    assert clock.synchronized() - began == pytest.approx(WORK)


def test_without_an_accelerator_the_clock_runs_all_the_same(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert clock.synchronized() <= clock.synchronized()


def test_events_tell_the_devices_own_seconds():
    """What passes between the calls is not counted, and the device is waited for before it is asked."""
    device = Device()
    assert clock.by_events(device.work, rounds=5, event=device.event) == pytest.approx(WORK)
