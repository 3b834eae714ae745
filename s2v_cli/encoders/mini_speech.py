"""The bundled speech encoder: the sound encoder's network, narrower, taught voices (§6.2)."""

from __future__ import annotations

from s2v_cli.encoders.mini_sound import MiniSoundEncoder

GROUPS = 6  # of voices and faces: two genders, three age groups


class MiniSpeechEncoder(MiniSoundEncoder):
    """Wave [B, T] at 16 kHz -> z^A [B, 256], unit norm, among the embeddings of faces.

    Its familiarity tells speech from other sounds.
    """

    stem_width = 16
    widths = (32, 64, 128)
    families = GROUPS
    prototype_count = GROUPS
