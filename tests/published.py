"""Small checkpoints in the published file formats, and the rule that fills reference networks.

The rule is that of the reference vectors (tests/fixtures/reference/README.md): each tensor comes
from a generator seeded by its own key. Widths are free; formats, keys and ranks are as published.
"""

from __future__ import annotations

import io
import math
import tarfile
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

Shape = tuple[int, ...]
SWAV_PARTS = {  # beside the trunk; only SwAV's training needs them
    "projection_head.0.weight": (2048, 2048),
    "projection_head.0.bias": (2048,),
    "prototypes.weight": (3000, 128),
}


def rule_tensor(key: str, shape: Shape) -> torch.Tensor:
    """One tensor of a reference network."""
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    if key.endswith(("running_var", "stored_var")):
        values = 0.5 + rng.random(shape)
    elif key.endswith(".sv0"):
        values = np.ones(shape)
    else:
        values = rng.standard_normal(shape)
        if key.endswith(".u0"):
            values /= np.linalg.norm(values)
        elif key.endswith(("running_mean", "stored_mean")):
            values = 0.1 * values
        elif len(shape) < 2:
            gain = key.endswith(("weight", "gamma", "log_logit_scale"))
            values = 0.1 * values + (1.0 if gain else 0.0)
        else:
            values /= math.sqrt(math.prod(shape[1:]))
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def rule_state(shapes: Mapping[str, Shape]) -> OrderedDict[str, torch.Tensor]:
    """State dict of a reference network."""
    return OrderedDict((key, rule_tensor(key, tuple(shape))) for key, shape in shapes.items())


def _batch_norm(shapes: dict[str, Shape], name: str, size: int) -> None:
    for part in ("weight", "bias", "running_mean", "running_var"):
        shapes[f"{name}.{part}"] = (size,)
    shapes[f"{name}.num_batches_tracked"] = ()


def sound_encoder_shapes(
    width: int = 64, dimension: int = 2048, *, two_layers: bool = False
) -> dict[str, Shape]:
    """Keys of the published ResNet-18 sound encoders; `width` channels after the stem."""
    shapes: dict[str, Shape] = {"audnet.conv1.weight": (width, 1, 7, 7)}
    _batch_norm(shapes, "audnet.bn1", width)
    inputs = width
    for stage in range(4):
        outputs = width * 2**stage
        for block in range(2):
            name = f"audnet.layer{stage + 1}.{block}"
            shapes[f"{name}.conv1.weight"] = (outputs, inputs, 3, 3)
            _batch_norm(shapes, f"{name}.bn1", outputs)
            shapes[f"{name}.conv2.weight"] = (outputs, outputs, 3, 3)
            _batch_norm(shapes, f"{name}.bn2", outputs)
            if inputs != outputs:
                shapes[f"{name}.downsample.0.weight"] = (outputs, inputs, 1, 1)
                _batch_norm(shapes, f"{name}.downsample.1", outputs)
            inputs = outputs
    shapes |= {"audnet.fc.weight": (dimension, inputs), "audnet.fc.bias": (dimension,)}
    if two_layers:
        shapes |= {"audnet.fc2.weight": (dimension, dimension), "audnet.fc2.bias": (dimension,)}
    return shapes


def swav_shapes(width: int = 64, dimension: int = 2048) -> dict[str, Shape]:
    """Keys of the published SwAV ResNet-50 without `module.`; `dimension` channels at its end."""
    shapes: dict[str, Shape] = {"conv1.weight": (width, 3, 7, 7)}
    _batch_norm(shapes, "bn1", width)
    inputs = width
    for stage, depth in enumerate((3, 4, 6, 3)):
        inner = width * 2**stage
        outputs = dimension if stage == 3 else 4 * inner
        for block in range(depth):
            name = f"layer{stage + 1}.{block}"
            for number, shape in enumerate(
                ((inner, inputs, 1, 1), (inner, inner, 3, 3), (outputs, inner, 1, 1)), start=1
            ):
                shapes[f"{name}.conv{number}.weight"] = shape
                _batch_norm(shapes, f"{name}.bn{number}", shape[0])
            if block == 0:
                shapes[f"{name}.downsample.0.weight"] = (outputs, inputs, 1, 1)
                _batch_norm(shapes, f"{name}.downsample.1", outputs)
            inputs = outputs
    return shapes


def icgan_shapes(resolution: int = 128, width: int = 96, features: int = 512) -> dict[str, Shape]:
    """Keys of ICGAN's published BigGAN generators."""
    times, chunk = {
        128: ((16, 16, 8, 4, 2, 1), 20),
        256: ((16, 16, 8, 8, 4, 2, 1), 17),
    }[resolution]
    channels = [width * factor for factor in times]
    shapes: dict[str, Shape] = {"shared.weight": (1000, 128)}

    def normed(name: str, *shape: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = shape
        if bias:
            shapes[f"{name}.bias"] = shape[:1]
        shapes[f"{name}.u0"], shapes[f"{name}.sv0"] = (1, shape[0]), (1,)

    normed("shared_feat", features, 2048)
    normed("linear", 16 * channels[0], chunk)
    for index, (inputs, outputs) in enumerate(pairwise(channels)):
        block = f"blocks.{index}.0"
        normed(f"{block}.conv1", outputs, inputs, 3, 3)
        normed(f"{block}.conv2", outputs, outputs, 3, 3)
        normed(f"{block}.conv_sc", outputs, inputs, 1, 1)
        for norm, size in (("bn1", inputs), ("bn2", outputs)):
            shapes[f"{block}.{norm}.stored_mean"] = shapes[f"{block}.{norm}.stored_var"] = (size,)
            normed(f"{block}.{norm}.gain", size, features + chunk, bias=False)
            normed(f"{block}.{norm}.bias", size, features + chunk, bias=False)
        if index == 3:
            block = f"blocks.{index}.1"
            shapes[f"{block}.gamma"] = ()
            normed(f"{block}.theta", outputs // 8, outputs, 1, 1, bias=False)
            normed(f"{block}.phi", outputs // 8, outputs, 1, 1, bias=False)
            normed(f"{block}.g", outputs // 2, outputs, 1, 1, bias=False)
            normed(f"{block}.o", outputs, outputs // 2, 1, 1, bias=False)
    for part in ("gain", "bias", "stored_mean", "stored_var"):
        shapes[f"output_layer.0.{part}"] = (width,)
    normed("output_layer.2", 3, width, 3, 3)
    return shapes


def write_sound2scene_pth(path: Path, width: int = 4) -> Path:
    """`sound2scene.pth`: a raw state dict."""
    torch.save(rule_state(sound_encoder_shapes(width)), path)
    return path


def write_sound2vision_pth(path: Path, width: int = 4) -> Path:
    """`sound2vision_env.pth`: a raw state dict."""
    torch.save(rule_state(sound_encoder_shapes(width, 1024, two_layers=True)), path)
    return path


def write_swav(path: Path, width: int = 4) -> Path:
    """`swav_800ep_pretrain.pth.tar`: keys after `module.`, with parts that only training needs."""
    state = rule_state({**swav_shapes(width), **SWAV_PARTS})
    torch.save(OrderedDict((f"module.{key}", value) for key, value in state.items()), path)
    return path


def icgan_run(best_fid: Any) -> dict[str, Any]:
    """What ICGAN keeps beside its weights: numbers of the run and its whole configuration."""
    return {
        "itr": 250_000,
        "epoch": 300,
        "save_num": 0,
        "save_best_num": 1,
        "best_IS": np.float32(60.0),
        "best_FID": best_fid,
        "config": {
            "G_activation": torch.nn.ReLU(inplace=False),
            "D_activation": torch.nn.ReLU(inplace=True),
            "G_lr": np.float64(4e-5),
            "seed": np.int64(0),
            "hier": np.bool_(True),
            "experiment_name": "icgan",
            "samples": OrderedDict(a=1),
        },
    }


def write_icgan_targz(
    path: Path,
    resolution: int = 128,
    *,
    width: int = 4,
    features: int = 8,
    state: Mapping[str, torch.Tensor] | None = None,
    best: int = 1,
    folder: str = "icgan_biggan_imagenet_res128",
    level: int = 1,
) -> Path:
    """ICGAN's archive: two copies of the run, of which number `best` has the lower FID.

    `state` is the better copy's; the other one is filled with zeros.
    """
    if state is None:
        state = rule_state(icgan_shapes(resolution, width, features))
    worse = {key: torch.zeros(()).expand(tensor.shape) for key, tensor in state.items()}
    with tarfile.open(path, "w:gz", compresslevel=level) as archive:
        for copy in (0, 1):
            fid = np.float64(9.5) if copy == best else np.float64(11.0)
            weights = state if copy == best else worse
            for name, content in (("state_dict", icgan_run(fid)), ("G_ema", weights)):
                stream = io.BytesIO()
                torch.save(content, stream)
                member = tarfile.TarInfo(f"{folder}/{name}_best{copy}.pth")
                member.size = stream.tell()
                stream.seek(0)
                archive.addfile(member, stream)
    return path


SPEAKER_PROJECTION = np.random.default_rng(2).normal(0, 0.1, (160, 256)).astype(np.float32)


def write_speaker_onnx(
    file: Path, *, bands: int = 80, size: int = 256, rank: int = 3, outputs: int = 1
) -> Path:
    """Mean and deviation over time, projected: what WeSpeaker's last layers do.

    The deviation is the unbiased one, as there: of a single frame it is not a number.
    """
    import onnx

    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    frames = ["B", "T", bands] if rank == 3 else ["B", "T"]
    nodes = [
        helper.make_node("ReduceMean", ["feats"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Sub", ["feats", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "centred"], ["squared"]),
        helper.make_node("ReduceSum", ["squared", "axis"], ["energy"], keepdims=1),
        helper.make_node("Shape", ["feats"], ["sizes"]),
        helper.make_node("Gather", ["sizes", "axis"], ["frames"]),
        helper.make_node("Cast", ["frames"], ["count"], to=kind),
        helper.make_node("Sub", ["count", "one"], ["freedom"]),
        helper.make_node("Div", ["energy", "freedom"], ["variance"]),
        helper.make_node("Sqrt", ["variance"], ["deviation"]),
        helper.make_node("Concat", ["mean", "deviation"], ["pooled"], axis=2),
        helper.make_node("Squeeze", ["pooled", "axis"], ["flat"]),
        helper.make_node("MatMul", ["flat", "projection"], ["embs"]),
    ]
    constants = {
        "projection": np.resize(SPEAKER_PROJECTION, (2 * bands, size)),
        "axis": np.array([1], dtype=np.int64),
        "one": np.array([1], dtype=np.float32),
    }
    if rank != 3:
        nodes = [helper.make_node("MatMul", ["feats", "projection"], ["embs"])]
        constants = {"projection": np.ones((bands, size), dtype=np.float32)}
    results = [helper.make_tensor_value_info("embs", kind, ["B", size])]
    if outputs == 2:  # as networks with two embeddings have; the last one counts
        nodes.append(helper.make_node("Neg", ["embs"], ["first"]))
        results.insert(0, helper.make_tensor_value_info("first", kind, ["B", size]))
    graph = helper.make_graph(
        nodes,
        "speaker",
        [helper.make_tensor_value_info("feats", kind, frames)],
        results,
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = helper.make_opsetid("", 14)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), str(file))
    return file


def write_face_head(path: Path) -> Path:
    """`sound2vision_face.pth`: a raw state dict of one linear layer."""
    torch.save(rule_state({"fc1.weight": (1024, 256), "fc1.bias": (1024,)}), path)
    return path


def write_imagebind(path: Path, width: int = 128, depth: int = 2) -> Path:
    """`imagebind_huge.pth`: the audio branch, with scraps of the other modalities."""
    from s2v_cli.encoders.imagebind import ImageBindAudio, published_name

    with torch.device("meta"):
        network = ImageBindAudio(width, depth)
    shapes: dict[str, Shape] = {
        published_name(key): tuple(value.shape) for key, value in network.state_dict().items()
    }
    shapes["modality_preprocessors.vision.cls_token"] = (1, 1, 1280)
    shapes["modality_heads.imu.3.weight"] = (1024, 512)
    torch.save(rule_state(shapes), path)
    return path
