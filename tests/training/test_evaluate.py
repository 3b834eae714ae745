"""Figures of the evaluation against known answers, and the whole of it on a miniature data set."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from s2v_cli.encoders.mini_image import MINI_SPACE, MiniImageEncoder
from s2v_cli.encoders.mini_sound import MiniSoundEncoder
from s2v_cli.errors import TrainingError
from s2v_cli.generators.mini import MiniGenerator
from s2v_cli.pipeline import Sound2Vision
from s2v_cli.training.dataset import Clip, find_clips, find_photos, load_photos
from s2v_cli.training.evaluate import evaluate
from s2v_cli.training.export import export_preset
from s2v_cli.training.familiarity import rank_auc
from s2v_cli.training.figures import signatures
from s2v_cli.training.judge import Judge
from s2v_cli.training.metrics import (
    bootstrap,
    class_mean,
    class_means,
    near_copies,
    nearest,
    pairwise_distance,
    rank_of,
    spread,
)
from s2v_cli.training.recipe import StageOptions
from s2v_cli.training.report import report
from s2v_cli.training.sound_stage import level_of
from s2v_cli.training.tables import fold_classes
from s2v_cli.training.zoom_regressor import (
    ZoomRegressor,
    loudness_spearman,
    ranks,
    spearman,
    train_zoom_regressor,
)

TINY = StageOptions(steps=2, batch=4, learning_rate=1e-3, validate_every=1)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def quality() -> ModuleType:
    """The command `benchmarks/quality.py`, which is in no package."""
    path = Path(__file__).parents[2] / "benchmarks" / "quality.py"
    spec = importlib.util.spec_from_file_location("quality", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_rank_counts_from_one_and_ties_count_against() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [1.0, 1.0, 0.0]])
    assert rank_of(logits, torch.tensor([0, 2, 0])).tolist() == [1, 3, 2]


def test_class_mean_gives_small_classes_the_same_weight() -> None:
    values, classes = [1.0, 1.0, 1.0, 0.0], ["rain", "rain", "rain", "bee"]
    assert class_means(values, classes) == {"bee": 0.0, "rain": 1.0}
    assert class_mean(values, classes) == 0.5


def test_bootstrap_is_seeded_and_around_the_mean() -> None:
    values = [1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0]
    classes, recordings = ["a"] * 4 + ["b"] * 4, list("01234567")
    low, high = bootstrap(values, classes, recordings)
    assert 0 <= low < class_mean(values, classes) < high <= 1
    assert bootstrap(values, classes, recordings) == (low, high)
    # 3 of 4 and 1 of 4: the mean's deviation is sqrt(0.1875 / 4 * 2) / 2 = 0.153
    assert high - low == pytest.approx(2 * 1.96 * 0.153, abs=0.1)


def test_clips_of_one_recording_are_drawn_together() -> None:
    values, classes = [1.0] * 8 + [0.0] * 8, ["a"] * 16
    apart = bootstrap(values, classes, [str(i) for i in range(16)])
    together = bootstrap(values, classes, ["first"] * 8 + ["second"] * 8)
    assert together == (0.0, 1.0)
    assert 0.1 < apart[0] < apart[1] < 0.9
    assert bootstrap(values, classes, ["one"] * 16) == (0.5, 0.5)


def test_pairwise_distance_is_the_mean_over_pairs() -> None:
    square = torch.tensor([[0.0, 0.0], [0.0, 3.0], [4.0, 0.0]])
    assert pairwise_distance(square) == pytest.approx((3 + 4 + 5) / 3)


def test_nearest_takes_the_best_version_of_each_row() -> None:
    queries = torch.tensor([[0.0, 0.0], [5.0, 5.0]])
    versions = [
        torch.tensor([[0.0, 3.0], [9.0, 9.0]]),
        torch.tensor([[7.0, 5.0], [1.0, 0.0]]),
    ]
    distance, index = nearest(queries, versions)
    assert distance.tolist() == pytest.approx([1.0, 2.0])
    assert index.tolist() == [1, 0]


def test_near_copies_are_nearer_than_real_photos_come() -> None:
    random = torch.Generator().manual_seed(0)
    train, held_out = torch.randn(2, 300, 16, generator=random)
    pictures = torch.randn(50, 16, generator=random)
    pictures[3] = train[17]
    pictures[8] = train[40] + 0.01
    reference, _ = nearest(held_out, [train])
    distance, index = nearest(pictures, [train])
    copied, limit = near_copies(distance, reference)
    assert {3, 8} <= set(copied.nonzero().flatten().tolist())
    assert int(copied.sum()) <= 5
    assert index[[3, 8]].tolist() == [17, 40]
    below = (reference.double() < limit).double().mean()
    assert float(below) == pytest.approx(0.01, abs=0.004)  # so many real photos count as copies
    assert not near_copies(torch.full((4,), limit), reference)[0].any()


def test_mirrored_and_nearer_versions_of_a_photo_are_found() -> None:
    torch.manual_seed(0)
    judge = Judge(["a", "b"]).eval()
    photos = F.interpolate(torch.rand(3, 3, 10, 10), (160, 160), mode="bicubic").clamp(0, 1) * 2 - 1
    features, thumbnails = signatures(judge, photos, 2.0, True)
    assert torch.allclose(features.norm(dim=1), torch.ones(3), atol=1e-5)
    copies = signatures(judge, photos[:, :, 40:120, 40:120].flip(-1))
    assert torch.allclose(thumbnails, copies[1], atol=1e-5)
    assert torch.allclose(features, copies[0], atol=1e-2)
    assert not torch.allclose(thumbnails, signatures(judge, photos)[1], atol=0.1)


def test_ranks_share_places_among_equals() -> None:
    assert ranks(torch.tensor([10.0, 30.0, 10.0, 20.0])).tolist() == [1.5, 4.0, 1.5, 3.0]


def test_spearman_by_hand() -> None:
    order = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert spearman(order, order.exp()) == pytest.approx(1)
    assert spearman(order, -order) == pytest.approx(-1)
    # d = 1, 1, 0, 0: 1 - 6 * 2 / (4 * 15)
    assert spearman(order, torch.tensor([2.0, 1.0, 3.0, 4.0])) == pytest.approx(0.8)
    assert spearman(order, torch.ones(4)) == 0.0
    with pytest.raises(ValueError, match="4 and 3"):
        spearman(order, order[:3])


def test_spearman_is_scipys_with_ties() -> None:
    stats = pytest.importorskip("scipy.stats")
    random = torch.Generator().manual_seed(0)
    for _ in range(5):
        first = torch.randint(0, 6, (40,), generator=random).float()
        second = first + torch.randint(0, 9, (40,), generator=random)
        expected = stats.spearmanr(first.numpy(), second.numpy()).statistic
        assert spearman(first, second) == pytest.approx(expected, abs=1e-9)


def test_auc_is_the_chance_that_a_positive_scores_higher() -> None:
    positive, negative = torch.tensor([0.9, 0.5]), torch.tensor([0.1, 0.5, 0.7])
    # 0.9 beats all three; 0.5 beats one and ties with one
    assert rank_auc(positive, negative) == pytest.approx((3 + 1.5) / 6)


def clip(name: str, number: int, photo: str | None = "rain") -> Clip:
    return Clip(name, photo, Path(f"{name}{number}.wav"), f"{name}{number}", "test")


def test_spread_takes_one_of_each_class_in_turn() -> None:
    assert spread("aaabcc", 4) == [0, 1, 3, 4]
    assert spread("aaabcc", 99) == list(range(6))


def test_fold_classes_are_paired_by_the_table_alone(tmp_path: Path) -> None:
    (tmp_path / "sounds").mkdir()
    (tmp_path / "sounds" / "SOURCES.csv").write_text(
        "class,esc50_fold\nrain,4\nwind,4\nclock,4\nbee,1\nforest,\nsnow,4\n"
    )
    (tmp_path / "sounds" / "image_classes.csv").write_text(
        "sound_class,image_class\nrain,rain\nwind,\nclock,\nbee,bee\nforest,forest\nsnow,snow\n"
    )
    assert fold_classes(tmp_path) == {"rain"}


class LevelEncoder(nn.Module):
    """z^A holds the level of the sound in its first number."""

    space, sample_rate, window_s = MINI_SPACE, 16_000, 0.5

    def forward(self, wave: Tensor) -> Tensor:
        return F.pad(level_of(wave)[:, None], (0, MINI_SPACE.dimension - 1))


class BrightGenerator(nn.Module):
    """The louder, the brighter (or darker); the noise changes it a little."""

    space, noise_size, resolution = MINI_SPACE, 4, 8

    def __init__(self, sign: float) -> None:
        super().__init__()
        self.sign = sign

    def forward(self, noise: Tensor, embedding: Tensor) -> Tensor:
        light = self.sign * embedding[:, 0] / 100 + noise.mean(dim=1) / 10
        return light[:, None, None, None].expand(-1, 3, 8, 8)


class LightReader(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(1, 2, 3))


@dataclass
class Pair:
    sound_encoder: Any
    generator: Any


def tones(count: int) -> list[Tensor]:
    time = torch.arange(8000) / 16_000
    return [0.02 * (300 * (i + 1) * 6.28 * time).sin() for i in range(count)]


def follow(model: Pair, waves: Sequence[Tensor] | None = None, **options: Any) -> float:
    clips = [clip("a", i) for i in range(3)]
    reader = cast(ZoomRegressor, LightReader())
    return loudness_spearman(model, reader, clips, waves or tones(3), **options)


def test_loudness_follows_the_gain_up_or_down() -> None:
    assert follow(Pair(LevelEncoder(), BrightGenerator(1))) == pytest.approx(1)
    assert follow(Pair(LevelEncoder(), BrightGenerator(-1))) == pytest.approx(-1)


def test_loudness_is_0_where_pictures_do_not_follow() -> None:
    assert follow(Pair(LevelEncoder(), BrightGenerator(0))) == 0.0


def test_a_control_that_hears_no_level_does_not_follow() -> None:
    class Rounded(BrightGenerator):
        """Shows the embedding itself, but not the rounding errors in it."""

        def forward(self, noise: Tensor, embedding: Tensor) -> Tensor:
            light = embedding[:, :8].sum(dim=1).round(decimals=3)
            return light[:, None, None, None].expand(-1, 3, 8, 8)

    torch.manual_seed(0)
    model = Pair(MiniSoundEncoder().eval(), Rounded(1))
    random = torch.Generator().manual_seed(0)
    hiss = [0.05 * torch.randn(8000, generator=random) for _ in range(3)]  # far above the floor
    gains = [-10, -5, 0, 5, 10]
    assert abs(follow(model, hiss, gains_db=gains, hear_level=True)) > 0.5
    assert follow(model, hiss, gains_db=gains, hear_level=False) == 0.0
    with pytest.raises(TrainingError, match="without level"):
        follow(Pair(LevelEncoder(), BrightGenerator(1)), hear_level=False)


def test_every_gain_gets_the_same_noise_and_every_clip_its_own() -> None:
    class Listening(BrightGenerator):
        def forward(self, noise: Tensor, embedding: Tensor) -> Tensor:
            seen.append(noise)
            return super().forward(noise, embedding)

    runs = []
    for _ in range(2):
        seen: list[Tensor] = []
        follow(Pair(LevelEncoder(), Listening(1)), seeds=2, truncation=0.5)
        runs.append(torch.stack(seen))  # [clips * seeds, gains, 4]
    assert torch.equal(runs[0], runs[1])
    assert runs[0].shape == (6, 9, 4)
    assert torch.equal(runs[0], runs[0][:, :1].expand(-1, 9, -1))
    assert len(runs[0][:, 0].unique(dim=0)) == 6
    third = torch.randn(1, 4, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(runs[0][2, :1], 0.5 * third)


def test_loudness_needs_a_wave_for_each_clip() -> None:
    reader = cast(ZoomRegressor, LightReader())
    model = Pair(LevelEncoder(), BrightGenerator(1))
    with pytest.raises(ValueError, match="2 clips and 1 waves"):
        loudness_spearman(model, reader, [clip("a", 0), clip("a", 1)], tones(1))


def test_the_zoom_regressor_reads_one_number_and_goes_on(miniature: Path, tmp_path: Path) -> None:
    photos = find_photos(miniature)
    pixels = load_photos(photos)
    regressor = train_zoom_regressor(photos, pixels, tmp_path, TINY)
    assert regressor(torch.zeros(2, 3, 128, 128)).shape == (2,)
    steps: list[int] = []
    again = train_zoom_regressor(
        photos, pixels, tmp_path, TINY, lambda _, step, *__: steps.append(step)
    )
    assert steps == []
    assert torch.equal(again.head.weight, regressor.head.weight)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Sound2Vision:
    """An untrained preset: its figures mean nothing, but it has all of them."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("preset") / "untrained"
    networks = MiniSoundEncoder(), MiniImageEncoder(), MiniGenerator()
    return Sound2Vision.load(export_preset(folder, *networks), device="cpu")


def measure(model: Sound2Vision, data: Path, folder: Path, **options: Any) -> dict[str, Any]:
    return evaluate(
        model,
        data,
        folder,
        split="test",
        seeds=2,
        loudness_clips=2,
        judge_options=TINY,
        zoom_options=TINY,
        **options,
    )


@pytest.fixture(scope="module")
def measured(
    model: Sound2Vision, miniature: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("evaluation")
    return measure(model, miniature, folder), folder


def test_an_evaluation_repeats(
    model: Sound2Vision, miniature: Path, measured: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    seen: list[str] = []
    again = measure(model, miniature, tmp_path, progress=lambda stage, *_: seen.append(stage))
    first = dict(measured[0])
    assert first.pop("seconds_per_picture") > 0
    again.pop("seconds_per_picture")
    assert first == again
    assert {"judge", "listen", "draw", "copies", "zoom_regressor", "loudness"} <= set(seen)


def test_an_evaluation_has_all_figures(
    miniature: Path, measured: tuple[dict[str, Any], Path]
) -> None:
    results = measured[0]

    scored = [c for c in find_clips(miniature) if c.split == "test" and c.photo_class]
    assert results["clips"] == len(scored)
    assert results["groups"] == 4
    assert set(results["by_class"]) == {"rain", "fire", "wind"}
    assert results["by_class"]["wind"]["photo_class"] == "mountain"
    everything, fold = results["retrieval"]["all"], results["retrieval"]["esc50_fold4"]
    assert (everything["classes"], fold["classes"]) == (3, 2)  # wind is an extra pair
    for entry in (everything, fold):
        low, high = entry["r1_interval"]
        assert 0 <= low <= entry["r1"] <= high <= 1
        assert entry["r1"] <= entry["r5"] == 1.0  # of four groups, all are among the first five
    assert results["copies"]["pictures"] == 2 * len(scored)
    assert 0 <= results["familiarity"]["auc"] <= 1
    assert -1 <= results["loudness"]["spearman"] <= 1


def test_an_evaluation_leaves_figures_and_sheets(measured: tuple[dict[str, Any], Path]) -> None:
    results, folder = measured
    assert json.loads((folder / "evaluation-test.json").read_text()) == results
    with Image.open(folder / "pictures-test.png") as sheet:
        assert sheet.size == (3 * 132 - 4, 3 * 132 - 4)  # label and two seeds; three classes
    with Image.open(folder / "nearest-test.png") as sheet:
        shown = min(10, results["copies"]["pictures"])
        assert sheet.size == (shown * 132 - 4, 2 * 132 - 4)
    text = report(results)
    for line in ("all (3)", "esc50_fold4 (2)", "near-copies by features", "familiarity AUC"):
        assert line in text
    row = next(line for line in text.splitlines() if line.startswith("wind"))
    assert f"{results['by_class']['wind']['r1']:.3f}" in row


@pytest.mark.parametrize(
    ("options", "says"), [({"split": "train"}, "validation, test"), ({"seeds": 1}, "2 or more")]
)
def test_what_cannot_be_measured_is_refused(
    model: Sound2Vision, miniature: Path, tmp_path: Path, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(TrainingError, match=says):
        evaluate(model, miniature, tmp_path, **options)


def test_the_command_prints_the_report_and_keeps_it(
    model: Sound2Vision,
    miniature: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    smaller = {"judge_options": TINY, "zoom_options": TINY, "loudness_clips": 1, "seeds": 2}
    for name, value in smaller.items():
        monkeypatch.setitem(cast(dict[str, Any], evaluate.__kwdefaults__), name, value)
    preset = str(model.preset.folder)
    arguments = [str(miniature), "--preset", preset, "--control", preset, "--out", str(tmp_path)]
    assert quality().main([*arguments, "--split", "test"]) == 0
    out, err = capsys.readouterr()
    assert out == (tmp_path / "evaluation-test.txt").read_text()
    assert "untrained, split test: 3 clips" in out
    results = json.loads((tmp_path / "evaluation-test.json").read_text())
    assert -1 <= results["loudness"]["control"] <= 1
    assert "judge 2/2" in err


def test_the_command_line_names_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments: Sequence[str] = [
        str(tmp_path / "nothing"),
        *("--preset", str(tmp_path / "no.toml"), "--out", str(tmp_path / "out")),
    ]
    assert quality().main(arguments) != 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
