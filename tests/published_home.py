"""A cache folder with tiny random models in place of all published weights.

The files have the published layouts and come in through `s2v weights import`, so that whatever is
drawn with them went the way of a user's own downloads.
"""

from __future__ import annotations

from pathlib import Path

from s2v_cli.networks import converters
from s2v_cli.weights.adopt import import_weights
from s2v_cli.weights.pull import PullOptions
from tests import published, tiny_diffusion


def fill_home(home: Path, downloads: Path) -> None:
    """Write published files into `downloads` and import them all; S2V_HOME must be `home`."""
    import os

    assert os.environ["S2V_HOME"] == str(home)
    downloads.mkdir(parents=True)
    diffusion = tiny_diffusion.write_stable_diffusion(downloads / "stable-diffusion-15")
    unclip = tiny_diffusion.write_unclip(downloads / "unclip")
    named = {
        "sound2scene-audio": published.write_sound2scene_pth(downloads / "sound2scene.pth"),
        "sound2vision-audio": published.write_sound2vision_pth(downloads / "sound2vision_env.pth"),
        "sound2vision-face": published.write_face_head(downloads / "sound2vision_face.pth"),
        "swav-resnet50": published.write_swav(downloads / "swav_800ep_pretrain.pth.tar"),
        "icgan-128": published.write_icgan_targz(downloads / "icgan_128.tar.gz", 128),
        "icgan-256": published.write_icgan_targz(downloads / "icgan_256.tar.gz", 256),
        "imagebind-audio": published.write_imagebind(downloads / "imagebind_huge.pth"),
        "wespeaker-resnet221": published.write_speaker_onnx(
            downloads / "voxceleb_resnet221_LM.onnx"
        ),
        "unclip": unclip,
        "unclip-image-encoder": unclip,
        "stable-diffusion-15": diffusion,
        "ip-adapter-sd15": tiny_diffusion.write_ip_adapter(
            downloads / "ip-adapter_sd15.safetensors", diffusion
        ),
        "clip-vit-h": tiny_diffusion.write_image_encoder(downloads / "clip-vit-h"),
    }
    options = PullOptions(accept_licence=True)
    for name, path in named.items():
        import_weights([path], converters(), options, name=name)
