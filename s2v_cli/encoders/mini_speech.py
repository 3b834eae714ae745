"""The bundled speech encoder: the sound encoder's network, taught voices and faces (§6.2)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from s2v_cli.encoders.mini_sound import MiniSoundEncoder

GROUPS = 6  # of voices and faces: two genders, three age groups
GROUP_TEMPERATURE = 0.005  # of the cosines between a voice and the mean voices of the groups


class MiniSpeechEncoder(MiniSoundEncoder):
    """Wave [B, T] at 16 kHz -> z^A [B, 256], unit norm, among the embeddings of faces.

    Its familiarity tells speech from other sounds. A voice says little of a face, so its prior is
    strong: `prototypes` are means of faces of each group, and which of them are likely is told by
    `centres`, the mean voices of the same groups, in the same order.
    """

    families = GROUPS
    prototype_count = GROUPS

    def start_from(self, encoder: MiniSoundEncoder) -> None:
        """Take over the convolutions of another encoder: what it has learned to hear."""
        self.stem.load_state_dict(encoder.stem.state_dict())
        self.blocks.load_state_dict(encoder.blocks.state_dict())

    def _draw_to_prototypes(self, embedding: Tensor, pooled: Tensor) -> Tensor:
        nearness = embedding @ self.centres.float().T
        likely = (nearness / GROUP_TEMPERATURE).softmax(dim=-1) @ self.prototypes.float()
        return F.normalize(
            embedding.lerp(F.normalize(likely, dim=-1), self.prior_share.float()), dim=-1
        )
