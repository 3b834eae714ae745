"""A real Ray, small and on this machine: the same bytes as without it, and what may go wrong."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from s2v_cli.errors import DependencyError, OptionError, TrainingError
from s2v_cli.training.prepare import cluster
from s2v_cli.training.prepare.cluster import RayCluster
from s2v_cli.training.prepare.examples import Made
from s2v_cli.training.prepare.options import PrepareOptions
from s2v_cli.training.prepare.sources import Item
from s2v_cli.training.prepare.work import prepare
from tests.training.prepare.drawing import contents, draw_pairs, draw_video, tone


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    import ray

    with pytest.MonkeyPatch.context() as patch:
        for name, value in cluster._ENVIRONMENT.items():
            patch.setenv(name, value)
        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        yield ray
        ray.shutdown()


def work(marks: Path, task: str) -> str:
    """Ends its process at the first try of `once`, and at every try of `always`."""
    tries = marks / task
    with tries.open("a") as file:
        file.write(".")
    if task == "always" or (task == "once" and len(tries.read_text()) == 1):
        os._exit(1)
    if task == "wrong":
        raise TrainingError("This is wrong.")
    return task.upper()


@pytest.mark.slow
def test_the_same_bytes_as_without_a_cluster(
    ray: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with relative paths, a broken file and a missing one."""
    monkeypatch.chdir(tmp_path)
    pairs = draw_pairs(Path("pairs"), 12)
    videos = Path("videos")
    for number in range(2):
        draw_video(videos / f"{number}.mp4", 1.0, wave=tone(300 + 50 * number, 1.0),
                   grey=lambda time_s, n=number: 90 * n + round(20 * time_s))  # fmt: skip
    (videos / "broken.mp4").write_bytes(b"broken")
    rows = ["video,source", *(f"{n}.mp4,{n}" for n in ("0", "1", "broken", "missing"))]
    (videos / "manifest.csv").write_text("\n".join(rows))
    for source in (pairs, videos):
        options = PrepareOptions(workers=1, shard_mb=0.02)
        here = prepare(source, Path(f"{source}-here"), options)
        there = prepare(source, Path(f"{source}-there"), options, executor=RayCluster())
        assert there.counts == here.counts
        assert contents(there.folder) == contents(here.folder)
    assert there.skipped == {"broken": 1, "missing": 1}


@pytest.mark.slow
def test_lost_processes_are_tried_again(ray: Any, tmp_path: Path) -> None:
    tasks = ["a", "once", "b", "always", "c"]
    results = RayCluster().map(partial(work, tmp_path), tasks, lambda task: f"{task} is lost")
    assert list(results) == ["A", "ONCE", "B", "always is lost", "C"]
    tries = {task: len((tmp_path / task).read_text()) for task in tasks}
    assert tries == {"a": 1, "once": 2, "b": 1, "always": 1 + cluster.RETRIES, "c": 1}
    with pytest.raises(TrainingError, match=r"^This is wrong\.$"):
        list(RayCluster().map(partial(work, tmp_path), ["wrong"], str))
    assert ray.is_initialized()  # who began it ends it


@pytest.mark.slow
def test_machines_that_do_not_fit(
    ray: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Made()
    item = Item("a", "a", "a.wav", sound=tmp_path / "a.wav")
    unseen = cluster._work((lambda _: made, os.getcwd(), cluster.__version__), item)
    assert unseen.missing == tmp_path / "a.wav"
    result = partial(cluster._result_of, ray, lambda _: made, item, ray.put(unseen), str)
    assert result() is made  # nobody sees it: the worker tells of that
    (tmp_path / "a.wav").touch()
    with pytest.raises(TrainingError, match=r"does not see .*a\.wav\. A cluster needs storage"):
        result()
    monkeypatch.setattr(cluster, "__version__", "0.0.1")
    with pytest.raises(TrainingError, match=r"this one 0\.0\.1\. Install the same version"):
        list(RayCluster().map(partial(work, tmp_path), ["a"], str))


def test_ray_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DependencyError, match=r"pip install 's2v-cli\[cluster\]'"):
        list(RayCluster("local").map(str, ["a"], str))


def test_addresses_where_no_cluster_is() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(OptionError, match=rf"ray is '{address}', where no cluster answers \("):
        list(RayCluster(address).map(str, ["a"], str))
    for wrong in ("head", ":6379", "head:port", "head:99999"):
        with pytest.raises(OptionError, match="allowed: local, auto, or HOST:PORT"):
            RayCluster(wrong)
