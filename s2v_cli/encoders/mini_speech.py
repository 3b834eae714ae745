"""The bundled speech encoder: the sound encoder's network, taught voices and faces (§6.2)."""

from __future__ import annotations

from s2v_cli.encoders.mini_sound import MiniSoundEncoder

GROUPS = 6  # of voices and faces: two genders, three age groups


class MiniSpeechEncoder(MiniSoundEncoder):
    """Wave [B, T] at 16 kHz -> z^A [B, 256], unit norm, among the embeddings of faces.

    Its familiarity tells speech from other sounds.
    """

    families = GROUPS
    prototype_count = GROUPS

    def start_from(self, encoder: MiniSoundEncoder) -> None:
        """Take over the convolutions of another encoder: what it has learned to hear."""
        self.stem.load_state_dict(encoder.stem.state_dict())
        self.blocks.load_state_dict(encoder.blocks.state_dict())
