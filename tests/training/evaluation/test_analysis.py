"""`s2v analyze`: figures and plots of `mini` on drawn pairs."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from s2v_cli.errors import OptionError, TrainingError
from s2v_cli.pipeline import Sound2Vision
from s2v_cli.training.evaluation import gap
from s2v_cli.training.evaluation.analysis import Pairs, analyze, embed_pairs, figures, table
from s2v_cli.training.evaluation.gap_options import AnalyzeOptions, preset_labels
from s2v_cli.training.evaluation.gap_plots import Map, flatten, plot_geometry, plot_maps
from s2v_cli.training.evaluation.held_out import open_held_out

if TYPE_CHECKING:
    from conftest import RunHere


def some_pairs(count: int = 12, dimension: int = 6) -> Pairs:
    """Pairs whose gap is 0.5 along the last axis, and nothing else."""
    image = torch.randn(count, dimension, generator=torch.Generator().manual_seed(0))
    image[:, -1] = 0
    sound = image.clone()
    sound[:, -1] -= 0.5
    names = tuple("ab"[i % 2] for i in range(count))
    return Pairs(image, sound, names, tuple(map(str, range(count))), count, 0)


def test_figures_of_a_known_gap() -> None:
    pairs = some_pairs()
    found = figures(pairs, gap.geometry(pairs.image, pairs.sound))
    assert found["magnitude"]["mean"] == pytest.approx(0.5)
    assert found["magnitude"]["sd"] == pytest.approx(0, abs=1e-6)
    assert (found["magnitude"]["low"], found["magnitude"]["high"]) == pytest.approx((0.5, 0.5))
    assert found["mean_gap_norm"] == pytest.approx(0.5)
    assert found["constant_share"] == pytest.approx(1)
    assert found["direction"]["quantiles"]["0.5"] == pytest.approx(1)
    assert found["orthogonality_sound_absolute"]["mean"] == pytest.approx(0, abs=1e-6)
    assert found["random_spread"] == pytest.approx(6**-0.5)
    json.dumps(found, allow_nan=False)


def test_unit_norm_is_optional_and_leaves_alignment_alone() -> None:
    pairs = some_pairs()
    unit = pairs.unit()
    assert torch.allclose(unit.image.norm(dim=1), torch.ones(12))
    raw, normed = (figures(p, gap.geometry(p.image, p.sound)) for p in (pairs, unit))
    assert raw["alignment"]["mean"] == pytest.approx(normed["alignment"]["mean"])
    assert raw["magnitude"]["mean"] != pytest.approx(normed["magnitude"]["mean"], rel=0.05)


def test_pairs_of_a_dataset_are_heard_and_seen_as_by_the_model(drawn: Path) -> None:
    model, data = Sound2Vision.load("mini"), open_held_out(drawn, "test")
    pairs = embed_pairs(model, data)
    assert len(pairs) == len(data.sounds) == 9
    assert pairs.names == tuple(example.name for example in data.sounds)
    partner = data.partners[4]
    assert partner is not None
    assert partner.name == data.sounds[4].name
    assert torch.equal(pairs.image[4], model.encode_image(data.picture(partner)))
    heard = model.encode_sound(data.sound(data.sounds[4], model)).embedding
    assert torch.equal(pairs.sound[4], heard)


def test_the_command_writes_figures_and_plots(s2v: RunHere, drawn: Path, folder: Path) -> None:
    ran = s2v("analyze", "mini", drawn, "-o", "out", "--theme", "dark")
    assert ran.status == 0, ran.err
    assert ran.lines[0].startswith("9 pairs of 9 recordings")
    assert any(line.startswith("alignment") for line in ran.lines)
    written = json.loads((folder / "out/analysis.json").read_text())
    (row,) = written["presets"]
    assert row["preset"] == "mini"
    assert row["magnitude"]["low"] <= row["magnitude"]["mean"] <= row["magnitude"]["high"]
    for name in ("gap.png", "tsne.png"):
        with Image.open(folder / "out" / name) as picture:
            assert picture.convert("RGB").getpixel((0, 0)) == (20, 22, 26)
    again = s2v("analyze", "mini", drawn, "-o", "again", "--json", "--theme", "dark")
    found = json.loads(again.out)
    assert found["presets"] == written["presets"]
    assert (folder / "again/tsne.png").read_bytes() == (folder / "out/tsne.png").read_bytes()


def test_without_a_map(s2v: RunHere, drawn: Path, folder: Path) -> None:
    ran = s2v("analyze", "mini", drawn, "-o", "out", "--map", "0", "--limit", "3", "--json")
    found = json.loads(ran.out)
    assert found["data"]["pairs"] == 3
    assert [Path(name).name for name in found["files"]] == ["gap.png", "analysis.json"]
    assert not (folder / "out/tsne.png").exists()


def test_pairs_of_files_without_classes(s2v: RunHere, unnamed: Path, folder: Path) -> None:
    found = json.loads(s2v("analyze", "mini", unnamed, "-o", "out", "--json").out)
    assert found["data"]["pairs"] == found["data"]["photos"] == 5


def test_too_few_pairs(s2v: RunHere, unnamed: Path, one_class: Path) -> None:
    ran = s2v("analyze", "mini", one_class, "--split", "validation", "-o", "out")
    assert ran.status == 1
    assert "1 pairs in the split 'validation'; a gap needs two or more" in ran.err
    ran = s2v("analyze", "mini", unnamed, "--split", "validation", "-o", "out")
    assert ran.status == 1
    assert "no sounds in the split 'validation'" in ran.err


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"split": "dev"}, "split is 'dev'; allowed: train, validation, test."),
        ({"limit": 1}, "limit is 1; allowed: 2 or more."),
        ({"scale": "raw"}, "scale is 'raw'; allowed: unit, own."),
        ({"mapped": -1}, "mapped is -1; allowed: 0 to 5000."),
        ({"perplexity": 1.0}, "perplexity is 1.0; allowed: 2 to 100."),
        ({"seed": -1}, "seed is -1; allowed: 0 to 2^32 - 1."),
        ({"theme": "blue"}, "theme is 'blue'; allowed: light, dark."),
    ],
)
def test_options_are_checked(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(OptionError) as error:
        AnalyzeOptions(**wrong)
    assert str(error.value) == says


def test_presets_are_told_apart(tmp_path: Path) -> None:
    assert preset_labels(["mini"]) == ["mini"]
    text = (Path(__file__).parents[3] / "presets/mini.toml").read_text()
    other = tmp_path / "mine.toml"
    other.write_text(text)
    assert preset_labels(["mini", str(other)]) == ["mini", "mine.toml"]
    with pytest.raises(OptionError, match="'mini' is named twice"):
        preset_labels(["mini", "mini"])
    with pytest.raises(OptionError, match="7 presets; allowed: 1 to 6"):
        preset_labels([str(i) for i in range(7)])


def test_a_preset_without_an_image_encoder(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "presets/mini.toml").read_text()
    head, *weights = text.split("[[weights]]")
    kept = [part for part in weights if "image_encoder" not in part]
    (tmp_path / "deaf.toml").write_text("[[weights]]".join([head, *kept]))
    with pytest.raises(OptionError, match="no image encoder"):
        preset_labels([str(tmp_path / "deaf.toml")])


def test_an_embedding_that_is_not_finite(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Sound2Vision.load("mini")
    monkeypatch.setattr(model, "encode_image", lambda image: torch.full((256,), torch.nan))
    with pytest.raises(TrainingError, match="is not finite"):
        embed_pairs(model, open_held_out(drawn, "test"))


def test_missing_packages_are_told_before_any_work(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from s2v_cli.errors import DependencyError
    from s2v_cli.training.evaluation import gap_plots

    monkeypatch.setattr(gap_plots, "find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"pip install .s2v-cli\[eval\]"):
        analyze(["mini"], drawn, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tsne_keeps_groups_together_and_needs_no_luck() -> None:
    random = torch.Generator().manual_seed(0)
    centres = torch.eye(4).repeat_interleave(10, dim=0) * 20
    points = centres + torch.randn(40, 4, generator=random) * 0.1
    flat = flatten(points, perplexity=8)
    assert flat.shape == (40, 2)
    assert np.array_equal(flat, flatten(points, perplexity=8))
    middles = flat.reshape(4, 10, 2).mean(axis=1)
    inner = np.linalg.norm(flat.reshape(4, 10, 2) - middles[:, None], axis=2).max()
    outer = min(np.linalg.norm(middles[a] - middles[b]) for a in range(4) for b in range(a))
    assert outer > inner


def test_plots_of_odd_values() -> None:
    """No gap at all, many classes, and names that would be formulas."""
    image = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    content = plot_geometry([("none", gap.geometry(image, image))])
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.getpixel((0, 0))[:3] == (255, 255, 255)
    places = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    names = ("$x_1^", "été", *(f"class {i}" for i in range(38)))
    assert plot_maps([Map("a $ b", places, places + 1, names)]).startswith(b"\x89PNG")


def test_the_table_has_a_column_a_preset() -> None:
    pairs = some_pairs()
    row = {"preset": "x", "space": "s-6 (raw)", "scale": "raw"}
    row |= figures(pairs, gap.geometry(pairs.image, pairs.sound))
    rows = table({"presets": [row, row | {"preset": "y", "scale": "unit"}]})
    assert rows[0] == ["", "x", "y"]
    assert {len(cells) for cells in rows} == {3}
    cells = {name: first for name, first, _ in rows}
    assert cells["magnitude ||g||"] == "0.500 [0.500, 0.500]"
    assert cells["embeddings"] == "as they are"
