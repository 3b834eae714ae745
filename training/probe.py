"""How much a sound encoder knows: a linear classifier on its features (Alain & Bengio, 2017).

What the probe tells rightly and the drawn picture does not was lost between the two: on the way
into the space of pictures, or by the generator.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor

from s2v_cli.errors import DependencyError

# Inverse regularisation, tried in turn. Of equals the first wins: the strongest would let the
# noise of many features outvote the one that tells.
STRENGTHS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
FOLDS = 5  # of the training recordings, to choose among them


def linear_probe(
    features: Tensor,
    classes: Sequence[str],
    recordings: Sequence[str],
    held_out: Tensor,
    held_out_classes: Sequence[str],
) -> list[float]:
    """Whether logistic regression names each held-out sound rightly, [M] of 0 and 1.

    Features are standardised by the training sounds, and classes count alike. The strength of
    regularisation is chosen by cross-validation over training recordings; what is held out takes no
    part in that.

    Args:
        features: of the training sounds, [N, F].
        classes: of the training sounds, two or more.
        recordings: of the training sounds; those of one recording stay in one fold.
        held_out: features [M, F].
        held_out_classes: what is right.

    Raises:
        DependencyError: scikit-learn is missing.
    """
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import GridSearchCV, GroupKFold
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError:
        raise DependencyError(
            "A linear probe needs scikit-learn: pip install 's2v-cli[eval]'"
        ) from None
    model = make_pipeline(
        StandardScaler(), LogisticRegression(max_iter=400, class_weight="balanced")
    )
    folds = min(FOLDS, len(set(recordings)))
    search = GridSearchCV(
        model,
        {"logisticregression__C": list(STRENGTHS)},
        scoring="balanced_accuracy",
        cv=GroupKFold(folds) if folds > 1 else [(np.arange(len(classes)),) * 2],
    )
    with np.errstate(all="ignore"), _quietly():
        search.fit(features.double().numpy(), list(classes), groups=list(recordings))
        guess = search.predict(held_out.double().numpy())
    return [float(a == b) for a, b in zip(guess.tolist(), held_out_classes, strict=True)]


def _quietly() -> AbstractContextManager[object]:
    """Without the warnings of folds that lack a class, and of fits that end early."""
    return warnings.catch_warnings(action="ignore")


@torch.no_grad()
def trunk_features(encoder: object, waves: Sequence[Tensor]) -> Tensor:
    """What a bundled sound encoder pools of the loudest window of each wave [T], [N, F]."""
    from s2v_cli.encoders.mini_sound import MiniSoundEncoder
    from s2v_cli.training.sound_stage import loudest_window

    assert isinstance(encoder, MiniSoundEncoder)
    rows = []
    for wave in waves:
        window = loudest_window(wave, encoder.samples)[None]
        rows.append(encoder.pooled(encoder.feature_map(encoder.spectrogram(window)))[0])
    return torch.stack(rows)
