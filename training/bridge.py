"""Closing the modality gap (§4.4): a linear map that brings sounds among their photos.

The contrastive loss asks only that a sound is nearer to its photo than to the others. What all
photos have in common tells none of them apart, so sounds learn little of it and stay outside, where
a generator that knows photos draws poorly. The paper closes the gap by its choice of loss; here the
rest of it is closed afterwards, in closed form. A small prior then draws each sound towards the
means of the photos that it is most likely paired with, as the prior of unCLIP (Ramesh et al., 2022)
does with a network.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2v_cli.audio.filterbank import log_mel
from s2v_cli.encoders.mini_sound import PROTOTYPES, MiniSoundEncoder
from s2v_cli.encoders.mini_speech import MiniSpeechEncoder
from s2v_cli.training.latents import blended_embedding
from s2v_cli.training.sound_stage import (
    BLEND,
    LOUDEST_DBFS,
    MOST,
    QUIETEST_DBFS,
    SoundStage,
    hide_level,
    level_of,
    loudest_window,
    thinned,
    zoom_of_level,
)
from s2v_cli.training.speech_stage import SpeechStage

PRIOR_SHARE = 0.7  # how far a sound is drawn to its likely photos; what is left tells its own
READ = 1.0  # weight of the classifier's logits beside those of the cosines
PULL = 0.3  # towards the plain shift by the mean gap; chosen on validation sounds
SPEECH_PRIOR_SHARE = 0.9  # how far a voice is drawn to the likely faces
MOST_FAMILIES = 512  # beyond, clusters of photos stand for the classes
CLEAREST = 1 / 12  # share of a group's faces that these are means of


@torch.no_grad()
def fit_bridge(encoder: MiniSoundEncoder, stage: SoundStage, seed: int = 0) -> None:
    """Fill in the encoder's `bridge` and `bridge_offset`, from the training split alone.

    Each clip is heard as in use, at a random level, and paired with photos of its class and of
    the zoom that goes with the level.

    Args:
        encoder: in eval mode, with a bridge that changes nothing yet.
        stage: that it was trained by; gives sounds and photos.
        seed: of levels and photos.
    """
    generator = torch.Generator().manual_seed(seed)
    sounds, images, weights = [], [], []
    pairs = thinned(list(range(len(stage.pairs))), MOST)
    total = sum(len(stage.train[stage.pairs[place]]) for place in pairs)
    most = MOST if total <= MOST else max(1, MOST // len(pairs))
    for place in pairs:
        name, group = stage.pairs[place], stage.photo_group[place]
        members = thinned(stage.train[name].tolist(), most)
        share = torch.rand(len(members), generator=generator)
        level = QUIETEST_DBFS + share * (LOUDEST_DBFS - QUIETEST_DBFS)
        for index, target in zip(members, level, strict=True):
            wave = loudest_window(stage.waves[index], encoder.samples)[None]
            wave = wave * 10 ** ((target - level_of(wave)) / 20)[:, None]
            spectrogram = log_mel(wave, encoder.samples)
            if not stage.hear_level:
                spectrogram = hide_level(spectrogram)
            sounds.append(encoder.embed(encoder.feature_map(spectrogram)))
        crop = stage.table.at_zoom(group.expand(len(members)), zoom_of_level(level), generator)
        images.append(blended_embedding(stage.table, crop, BLEND, generator))
        weights.append(torch.full((len(members),), 1 / len(members)))  # a class counts as one
    matrix, encoder.bridge_offset = ridge_to_identity(
        torch.cat(sounds), F.normalize(torch.cat(images), dim=1), torch.cat(weights), PULL
    )
    encoder.bridge = matrix - torch.eye(len(matrix))


def fit_prior(
    encoder: MiniSoundEncoder, stage: SoundStage, classifier: nn.Linear | None = None
) -> None:
    """Fill in the encoder's prior; to be called last.

    Each photo class that sounds are paired with has two prototypes, the mean z^V of its crops of
    small and of large zoom, so that level still points to zoom. Where photos have no classes, or
    there are very many, clusters of the photos stand for them.

    Args:
        encoder: in eval mode.
        stage: that it was trained by.
        classifier: of the stage's sound classes, which then helps to tell what is likely.
    """
    table = stage.table
    reader = offset = None
    if stage.alone or len(stage.pairs) > MOST_FAMILIES:
        rows = cluster_means(table.embedding, PROTOTYPES)
    else:
        rows = torch.stack(
            [
                half.mean(dim=0)
                for group in stage.photo_group.tolist()
                for half in table.embedding[table.group == group].tensor_split(2)  # by zoom
            ]
        )
        if classifier is not None:
            chosen = torch.tensor([stage.places[name] for name in stage.pairs for _ in range(2)])
            reader = READ * classifier.weight.detach()[chosen]
            offset = READ * classifier.bias.detach()[chosen]
    encoder.set_prior(F.normalize(rows, dim=1), PRIOR_SHARE, reader, offset)


def cluster_means(embedding: Tensor, count: int, seed: int = 0, rounds: int = 30) -> Tensor:
    """Unit means [K, D], K <= count, of clusters of unit embeddings [N, D] (spherical k-means).

    Of many embeddings an even choice is clustered.
    """
    rows = embedding[torch.tensor(thinned(list(range(len(embedding))), 4 * MOST))]
    generator = torch.Generator().manual_seed(seed)
    means = rows[torch.randperm(len(rows), generator=generator)[:count]]
    for _ in range(rounds):
        nearest = (rows @ means.T).argmax(dim=1)
        sums = torch.zeros_like(means).index_add_(0, nearest, rows)
        # A cluster that lost all its rows stays where it was.
        means = torch.where(sums.any(dim=1, keepdim=True), F.normalize(sums, dim=1), means)
    return means


def fit_speech_prior(encoder: MiniSpeechEncoder, stage: SpeechStage) -> None:
    """Fill in `prototypes`, a mean of the clearest faces of each group; to be called last.

    It needs no bridge before it: what is left of where the voice itself lies is a tenth.
    """
    encoder.set_prior(stage.mean_faces(CLEAREST), SPEECH_PRIOR_SHARE)


def ridge_to_identity(
    source: Tensor, target: Tensor, weight: Tensor, pull: float
) -> tuple[Tensor, Tensor]:
    """The map M [D, D] and offset o [D] that bring rows of source [N, D] to target [N, D].

    With a weight [N] for each row they minimise the weighted sum of |source M + o - target|^2
    plus pull |M - I|^2: with much pull M is the identity and o the mean gap, with little the map
    is that of least squares.
    """
    size = source.shape[1]
    rows = torch.cat([source, torch.ones(len(source), 1)], dim=1).double()
    towards = torch.cat([torch.eye(size), torch.zeros(1, size)]).double()
    penalty = torch.full((size + 1,), pull).double()
    penalty[-1] = 0  # the offset is free
    weighted = rows * weight.double()[:, None]
    normal = weighted.T @ rows + penalty.diag()
    found = torch.linalg.solve(normal, weighted.T @ target.double() + penalty.diag() @ towards)
    return found[:-1].float(), found[-1].float()
