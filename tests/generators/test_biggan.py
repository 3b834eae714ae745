"""ICGAN's BigGAN: folded, it equals the published network; its archive is read with care."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm, truncnorm

from s2v_cli.errors import WeightsError
from s2v_cli.generators import Generator
from s2v_cli.generators.biggan import BigGan, UpConvolution, truncated
from s2v_cli.generators.biggan_weights import (
    convert,
    convert_128,
    convert_256,
    doubling_weight,
    fold,
)
from s2v_cli.space import SWAV_SPACE
from tests.published import (
    icgan_run,
    icgan_shapes,
    rule_state,
    write_icgan_targz,
    write_sound2scene_pth,
)

REFERENCE = Path(__file__).parent.parent / "fixtures" / "reference"


def loaded(tensors: Mapping[str, torch.Tensor]) -> BigGan:
    generator = BigGan.like(tensors)
    generator.load_state_dict(tensors, strict=True, assign=True)
    return generator.eval().requires_grad_(False)


def narrow(resolution: int = 128, width: int = 8, features: int = 16) -> BigGan:
    return loaded(fold(rule_state(icgan_shapes(resolution, width, features)), "a test"))


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())


def inputs(generator: BigGan, count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(3)
    noise = torch.randn(count, generator.noise_size, generator=random)
    embedding = torch.rand(count, 2048, generator=random)
    return noise, torch.nn.functional.normalize(embedding, dim=1)


@pytest.mark.parametrize(("resolution", "step"), [(128, 2), (256, 4)])
def test_a_narrow_one_equals_the_published_code(resolution: int, step: int) -> None:
    with np.load(REFERENCE / "icgan_narrow.npz") as stored:
        noise, embedding, expected = (
            torch.from_numpy(stored[f"{name}_{resolution}"]) for name in ("z", "feats", "image")
        )
    image = narrow(resolution)(noise, embedding)
    assert image.shape == (2, 3, resolution, resolution)
    assert relative_error(image[:, :, ::step, ::step], expected) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(("resolution", "step"), [(128, 2), (256, 5)])
def test_the_whole_one_equals_its_reference(resolution: int, step: int, tmp_path: Path) -> None:
    archive = write_icgan_targz(
        tmp_path / "icgan.tar.gz", state=rule_state(icgan_shapes(resolution)), level=0
    )
    generator = loaded(convert({archive.name: archive}))
    with np.load(REFERENCE / f"icgan_biggan_imagenet_res{resolution}.npz") as file:
        stored = {name: torch.from_numpy(file[name]) for name in file.files}
    image = generator(stored["z"], stored["feats"])
    ordinal = {2: "2nd", 5: "5th"}[step]
    assert relative_error(image[:, :, ::step, ::step], stored[f"image_every_{ordinal}"]) < 1e-4
    means = torch.nn.functional.avg_pool2d(image, 4)
    assert relative_error(means, stored["image_4x4_means"]) < 1e-4
    assert relative_error(image.mean(dim=(2, 3)), stored["image_mean"]) < 1e-4
    deviation = image.std(dim=(2, 3), correction=0)
    assert relative_error(deviation, stored["image_std"]) < 1e-4


@pytest.mark.parametrize("resolution", [128, 256])
def test_the_small_archives_have_the_published_keys(resolution: int) -> None:
    path = REFERENCE / f"icgan_biggan_imagenet_res{resolution}.keys.json"
    published = json.loads(path.read_text())
    assert {key: tuple(shape) for key, (shape, _) in published.items()} == icgan_shapes(resolution)


def test_what_it_says_of_itself() -> None:
    for resolution, noise_size in ((128, 120), (256, 119)):
        with torch.device("meta"):
            generator = BigGan(resolution)
        assert isinstance(generator, Generator)
        assert (generator.space, generator.noise_size) == (SWAV_SPACE, noise_size)
        assert generator.resolution == resolution


def test_the_length_of_an_embedding_does_not_matter_and_a_batch_does_not_mix() -> None:
    generator = narrow()
    noise, embedding = inputs(generator)
    both = generator(noise, embedding)
    assert both.abs().max() <= 1
    assert torch.allclose(generator(noise, 5 * embedding), both, atol=1e-5)
    assert torch.allclose(generator(noise[1:], embedding[1:])[0], both[1], atol=1e-5)
    assert not torch.allclose(both[0], both[1], atol=1e-2)


@pytest.mark.parametrize("number", range(6))
def test_every_share_of_the_noise_is_heard(number: int) -> None:
    generator = narrow()
    noise, embedding = inputs(generator, 1)
    changed = noise.clone()
    changed[:, 20 * number : 20 * (number + 1)] *= -1
    difference = generator(changed, embedding) - generator(noise, embedding)
    assert difference.abs().max() > 1e-3


def test_gradients_are_those_of_the_picture() -> None:
    generator = narrow(width=4, features=8).double()
    noise, embedding = (each.double().requires_grad_() for each in inputs(generator, 1))
    weighting = torch.randn(
        1, 3, 128, 128, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )

    def score(noise: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        return (generator(noise, embedding) * weighting).sum()

    slopes = torch.autograd.grad(score(noise, embedding), (noise, embedding))
    steps = [torch.randn_like(each) * 1e-6 for each in (noise, embedding)]
    with torch.no_grad():
        moved = score(noise + steps[0], embedding + steps[1])
        moved = moved - score(noise - steps[0], embedding - steps[1])
    expected = sum(float((slope * step).sum()) for slope, step in zip(slopes, steps, strict=True))
    assert float(moved) / 2 == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("side", "kind"), [(4, "plain"), (8, "matrix"), (16, "transposed")])
def test_doubling_and_convolving_at_once(side: int, kind: str) -> None:
    random = torch.Generator().manual_seed(0)
    image = torch.randn(2, 5, side, side, generator=random)
    weight, bias = torch.randn(7, 5, 3, 3, generator=random), torch.randn(7, generator=random)
    doubled = torch.nn.functional.interpolate(image, scale_factor=2)
    expected = torch.nn.functional.conv2d(doubled, weight, bias, padding=1)
    layer = UpConvolution(5, 7, side)
    assert layer.kind == kind
    layer.load_state_dict({"weight": doubling_weight(weight, kind), "bias": bias})
    with torch.no_grad():
        actual = layer(image.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    assert torch.allclose(actual, expected, atol=1e-4)


def test_weights_stay_where_they_are_mapped() -> None:
    tensors = fold(rule_state(icgan_shapes(128, 4, 8)), "a test")
    generator = loaded(tensors)
    generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for key, tensor in generator.state_dict().items():
        assert tensor.data_ptr() == tensors[key].data_ptr(), key


@pytest.mark.parametrize("truncation", [0.05, 0.4, 0.7, 0.99])
def test_truncated_noise_keeps_its_quantiles(truncation: float) -> None:
    noise = torch.cat(
        [torch.randn(2000, generator=torch.Generator().manual_seed(1)), torch.tensor([0.0, -6, 6])]
    )
    actual = truncated(noise, truncation).numpy()
    bound = 2 * truncation
    expected = truncnorm.ppf(norm.cdf(noise.double().numpy()), -bound, bound)
    assert np.abs(actual - expected).max() < 1e-5
    assert np.abs(actual).max() <= bound
    order = np.argsort(noise.numpy())
    assert (np.diff(actual[order]) >= 0).all()


@pytest.mark.parametrize("truncation", [None, 1.0, 1.5])
def test_without_truncation_noise_stays_as_it_is(truncation: float | None) -> None:
    noise = torch.randn(4, 120)
    assert torch.equal(narrow(width=4, features=8).truncate(noise, truncation), noise)


@pytest.mark.parametrize("best", [0, 1])
def test_of_two_copies_the_one_with_the_lower_fid_is_taken(best: int, tmp_path: Path) -> None:
    # Its folder has another name than its resolution: only content counts.
    archive = write_icgan_targz(
        tmp_path / "x.tar.gz", 256, best=best, folder="icgan_biggan_imagenet_res256_nofeataug"
    )
    tensors = convert({"icgan_biggan_imagenet_res128.tar.gz": archive})
    expected = fold(rule_state(icgan_shapes(256, 4, 8)), "a test")
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[key], expected[key]) for key in expected)
    assert BigGan.like(tensors).resolution == 256
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.tar.gz"]


def test_swapped_archives_are_refused_both_ways(tmp_path: Path) -> None:
    small = {"x": write_icgan_targz(tmp_path / "128.tar.gz", 128)}
    large = {"x": write_icgan_targz(tmp_path / "256.tar.gz", 256)}
    assert BigGan.like(convert_128(small)).resolution == 128
    assert BigGan.like(convert_256(large)).resolution == 256
    with pytest.raises(WeightsError, match=r"of 128 px \(256.tar.gz\): it draws 256 px"):
        convert_128(large)
    with pytest.raises(WeightsError, match=r"of 256 px \(128.tar.gz\): it draws 128 px"):
        convert_256(small)


def test_unpacked_files_will_do(tmp_path: Path) -> None:
    state = rule_state(icgan_shapes(128, 4, 8))
    expected = fold(state, "a test")
    files = {}
    for copy, fid in ((0, 9.0), (1, torch.tensor(12.5))):
        weights = state if copy == 0 else {key: 0 * tensor for key, tensor in state.items()}
        for name, content in ((f"state_dict_best{copy}.pth", icgan_run(fid)),
                              (f"G_ema_best{copy}.pth", weights)):  # fmt: skip
            torch.save(content, tmp_path / name)
            files[name] = tmp_path / name
    for some in (files, {name: path for name, path in files.items() if "best0" in name},
                 {"G_ema_best0.pth": files["G_ema_best0.pth"]}):  # fmt: skip
        tensors = convert(some)
        assert all(torch.equal(tensors[key], expected[key]) for key in expected)
    with pytest.raises(WeightsError, match="no pair"):
        convert({name: path for name, path in files.items() if "state_dict" in name})


def with_old_numpy_names(path: Path) -> None:
    """Rewrite a checkpoint as numpy before version 2 would have pickled it."""
    with zipfile.ZipFile(path) as archive:
        members = [(info, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for info, content in members:
            if info.filename.endswith("data.pkl"):
                assert b"numpy._core" in content
                content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            archive.writestr(info.filename, content)


def test_the_run_may_have_been_pickled_by_an_old_numpy(tmp_path: Path) -> None:
    weights, run = tmp_path / "G_ema_best0.pth", tmp_path / "state_dict_best0.pth"
    torch.save(rule_state(icgan_shapes(128, 4, 8)), weights)
    torch.save(icgan_run(np.float64(9.5)), run)
    with_old_numpy_names(run)
    assert convert({weights.name: weights, run.name: run})


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("payload-ran",)


@pytest.mark.parametrize("where", ["state_dict", "G_ema"])
def test_a_malicious_pickle_does_not_run(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {}
    for name, content in (("state_dict", icgan_run(9.5)), ("G_ema", {"weight": torch.ones(1)})):
        path = tmp_path / f"{name}_best0.pth"
        torch.save({**content, "config": Payload()} if name == where else content, path)
        files[path.name] = path
    with pytest.raises(WeightsError) as raised:
        convert(files)
    assert f"{where}_best0.pth" in str(raised.value) and "\n" not in str(raised.value)
    assert not Path("payload-ran").exists()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda state: state.pop("linear.u0"), "linear.u0"),
        (lambda state: state.pop("output_layer.2.weight"), "output_layer.2.weight"),
        (lambda state: state.update(extra=torch.zeros(1)), "extra"),
        (lambda state: state.update({"blocks.4.0.bn1.stored_var": torch.zeros(3)}), "stored_var"),
        (lambda state: state.update({"shared_feat.weight": torch.zeros(8, 1000)}), "shared_feat"),
        (lambda state: state.pop("blocks.2.0.conv1.weight"), "4 blocks"),
        (lambda state: state.update({"linear.weight": "text"}), "linear.weight|is not as"),
    ],
)
def test_what_does_not_fit_is_named(
    change: Callable[[dict[str, Any]], Any], named: str, tmp_path: Path
) -> None:
    state = dict(rule_state(icgan_shapes(128, 4, 8)))
    change(state)
    path = tmp_path / "G_ema_best0.pth"
    torch.save(state, path)
    with pytest.raises(WeightsError, match=named) as raised:
        convert({path.name: path})
    assert "\n" not in str(raised.value)


def test_another_network_is_refused(tmp_path: Path) -> None:
    path = write_sound2scene_pth(tmp_path / "sound2scene.pth")
    with pytest.raises(WeightsError, match="BigGAN"):
        convert({path.name: path})


def test_an_archive_without_the_generator_is_refused(tmp_path: Path) -> None:
    import tarfile

    path = tmp_path / "x.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(write_sound2scene_pth(tmp_path / "a.pth"), "folder/a.pth")
    with pytest.raises(WeightsError, match="G_ema_best0"):
        convert({path.name: path})


def test_tuning_leaves_what_reads_noise_and_embedding() -> None:
    network = BigGan(128, width=8, chunk=4, features=4)
    tuned = {id(parameter) for parameter in network.tunable_parameters()}
    left = {name for name, value in network.named_parameters() if id(value) not in tuned}
    assert {name.split(".")[0] for name in left} == {"embed", "start", "blocks"}
    assert all(".norm" in name for name in left if name.startswith("blocks"))
    assert {"out.weight", "blocks.0.up.weight"}.isdisjoint(left)
