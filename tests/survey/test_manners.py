"""A survey's manners towards a hub: it waits as long as it is asked to, gives up in the end, and is never too many."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from fixtures.published.hub import HubError
from fixtures.survey import tables
from fixtures.survey.manners import TIMES, Manners, wait_of
from tests.support.checkpoints import SMALL, make
from tests.support.hub_stand_in import Repo, checkpoint, hub

ROOT = Path(__file__).parents[2]


def busy(after: str = "") -> HubError:
    """What is raised where a hub answers 429."""
    error = HubError("busy", "The hub is busy.")
    error.response = SimpleNamespace(headers={"Retry-After": after} if after else {})  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(("after", "seconds"), [("7", 7.0), ("", None), ("soon", None), ("9" * 12, None)])
def test_the_hub_says_how_long(after, seconds):
    assert wait_of(busy(after)) == seconds


def test_a_date_is_a_time_to_wait():
    assert wait_of(busy("Wed, 21 Oct 2015 07:28:00 GMT")) == 0.0


@pytest.mark.parametrize(("after", "least"), [("7", 6.9), ("", 0.9)])
def test_it_waits_that_long_and_asks_again(after, least):
    waited: list[float] = []
    answers = iter([busy(after), None])

    def act():
        error = next(answers)
        if error is not None:
            raise error
        return "here"

    manners = Manners(wait=waited.append)
    assert manners.asked(act) == "here"
    assert waited[0] >= least


def test_it_gives_up_in_the_end():
    asked = []

    def act():
        asked.append(1)
        raise busy()

    with pytest.raises(HubError):
        Manners(wait=lambda seconds: None).asked(act)
    assert len(asked) == TIMES


@pytest.mark.parametrize("error", [HubError("missing", "There is none."), busy("86400")])
def test_what_does_not_pass_is_asked_for_once(error):
    asked = []

    def act():
        asked.append(1)
        raise error

    with pytest.raises(HubError):
        Manners(wait=lambda seconds: None).asked(act)
    assert len(asked) == 1


def test_it_is_never_many_at_once():
    manners, now, most, lock = Manners(3), [0], [0], threading.Lock()

    def act():
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.01)
        with lock:
            now[0] -= 1

    threads = [threading.Thread(target=lambda: manners.asked(act)) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= most[0] <= 3


@pytest.mark.slow
def test_a_survey_of_a_hub_with_troubles(tmp_path):
    """Sound, busy at first, missing and forbidden repositories: each gets its row, and no weights are fetched."""
    common = {name: SMALL[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")}
    made = make(tmp_path / "made", model_type="llama", intermediate_size=40, num_key_value_heads=2, **common)
    files = checkpoint(made)
    troubles = {"org/sound": "", "org/later": "busy at first", "org/down": "forbidden"}
    with hub({name: Repo(files, trouble) for name, trouble in troubles.items()}) as server:
        (tmp_path / "list").write_text("".join(f"{name}\n" for name in [*troubles, "org/missing"]))
        environment = {**os.environ, "HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home")}
        environment.pop("HF_HUB_OFFLINE", None)
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--models-from={tmp_path / 'list'}"]
        command += [f"--records={tmp_path / 'out'}", f"--settled={tmp_path / 'settled'}"]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    found = {row["release"]: row for row in tables.read(tmp_path / "out", "releases")}
    verdicts = {name: row["verdict"] for name, row in found.items()}
    expected = {"org/sound": "holds", "org/later": "holds", "org/down": "not run", "org/missing": "not run"}
    assert verdicts == expected, done.stdout
    assert found["org/sound"]["revision"] == "a" * 40
    assert not list((tmp_path / "home").rglob("*.safetensors"))
