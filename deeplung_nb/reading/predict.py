"""From a scan to a mask on its own grid."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from deeplung_nb.imaging.body import body_mask, without_outside
from deeplung_nb.imaging.lungs import LungMask, large_lungs
from deeplung_nb.imaging.preprocess import prepare, restore, window_indices
from deeplung_nb.imaging.scan import LesionMask, Scan
from deeplung_nb.kernels import can_compile
from deeplung_nb.network.checkpoint import Network, load_network
from deeplung_nb.network.deeplung import DeepLungNet, Scores, probabilities
from deeplung_nb.network.device import autocast, choose_device, keep_freed_memory
from deeplung_nb.network.fast import FastDeepLungNet
from deeplung_nb.network.fused import with_border
from deeplung_nb.runs.progress import track


def lesion_first(scores: np.ndarray, threshold: float | None) -> np.ndarray:
    """Scores [..., class, S, S] whose highest is a lesion where both lesions together exceed it.

    Where neither class is sure of itself, their sum may well be: the background's score is replaced
    by one that wins exactly where ground glass + high opacity <= threshold. None: as they are.
    """
    if threshold is None:
        return scores
    out = scores.copy()
    lesions = scores[..., 1:, :, :]
    out[..., 0, :, :] = lesions.max(axis=-3) + threshold - lesions.sum(axis=-3)
    return out


class Reading(NamedTuple):
    """What networks mark in a scan; no `lungs` where one of them does not mark these."""

    lesions: LesionMask
    lungs: LungMask | None


class Predictor:
    """One network, or several whose scores are averaged, over the slices of a scan.

    Parameters
    ----------
    networks
        Networks of one image size and window.
    batch
        Windows scored together.
    fast
        On a CPU, score `DeepLungNet`s by `network.fast`: the same but for rounding (scores within
        1e-5), twice as fast. False: the networks as they are written, which is what `fast` is
        tested against. What can't be arranged so is scored the plain way; `is_fast` says which.
    """

    def __init__(
        self, networks: Sequence[Network], *, batch: int = 4, precision: str = "float32",
        device: torch.device | None = None, fast: bool = True,
    ) -> None:
        sizes = {(n.image_size, n.sees, n.scores, n.lesion_threshold) for n in networks}
        if len(sizes) != 1:
            raise ValueError("networks of one image size, window and lesion threshold expected, "
                             f"found {len(sizes)}")
        keep_freed_memory()
        self.device = device or choose_device()
        self.networks = [network.eval().to(self.device) for network in networks]
        (self.image_size, self.sees, self.scores, self.lesion_threshold), = sizes
        self.batch, self.precision = batch, precision
        self._fast = {}
        if fast and self.device.type == "cpu":
            ours = [network for network in self.networks if isinstance(network, DeepLungNet)]
            if ours and not can_compile():
                warnings.warn("numba is not installed: scoring takes the plain way, which is some "
                              "three times as slow. Install deeplung_nb[network]", stacklevel=2)
            else:
                self._fast = {id(network): FastDeepLungNet(network) for network in ours}

    @property
    def is_fast(self) -> bool:
        """Whether every network is scored by `network.fast`."""
        return len(self._fast) == len(self.networks)

    def _score(self, network: Network, slices: np.ndarray, orders: np.ndarray) -> Scores:
        """Windows over these slices."""
        if id(network) in self._fast:
            return self._fast[id(network)](with_border(slices), orders)
        return network(torch.from_numpy(slices[orders]).to(self.device))

    @classmethod
    def from_checkpoints(cls, paths: Sequence[str | Path], **options: object) -> Predictor:
        """A predictor from checkpoint files."""
        return cls([load_network(path) for path in paths], **options)

    @torch.inference_mode()
    def read_batches(
        self, prepared: np.ndarray, progress: str | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Scores of all slices in order, batch by batch.

        Parameters
        ----------
        prepared
            float32 [z, S, S] in [0, 1], of `imaging.preprocess.prepare`. At the ends of the scan
            the first and last slices stand in for missing neighbours.
        progress
            Label of a progress bar; None for none.

        Yields
        ------
        (scores, lungs)
            [network, slices, class, S, S] in (0, 1), and the networks' mean logits of the lungs
            [slices, s, s] at the trunk's stride, None where one of them does not mark these.

        Raises
        ------
        ValueError
            A score is not finite.
        """
        n_slices = len(prepared)
        # Targets such that what is scored around them tiles the scan.
        targets = [start - self.scores[0] for start in range(0, n_slices, len(self.scores))]
        todo = range(0, len(targets), self.batch)
        n_left = n_slices
        for start in track(todo, progress or "", "batch", shown=progress is not None):
            rows = np.stack([window_indices(z, n_slices, self.sees)
                             for z in targets[start:start + self.batch]])
            seen = prepared[rows.min():rows.max() + 1]
            scores, lungs = [], []
            with autocast(self.device, self.precision):
                for network in self.networks:
                    scored = self._score(network, seen, rows - rows.min())
                    scores.append(probabilities(scored.fused.float(), network.output))
                    lungs += [] if scored.lungs is None else [scored.lungs.float()[:, 0]]
            # A last slab reaches beyond the scan.
            found = torch.stack(scores)[:, :n_left].cpu().numpy()
            if not np.isfinite(found).all():
                raise ValueError("the network's scores are NaN or infinite, from which no volume "
                                 "can be told. Are its weights those that were trained?")
            every = len(lungs) == len(self.networks)
            yield found, torch.stack(lungs).mean(dim=0).cpu().numpy() if every else None
            n_left -= len(rows) * len(self.scores)

    def scores_per_network(
        self, prepared: np.ndarray, progress: str | None = None
    ) -> Iterator[np.ndarray]:
        """Scores [network, slices, class, S, S] in (0, 1), as `read_batches`."""
        for scores, _ in self.read_batches(prepared, progress):
            yield scores

    def decide(self, scores: np.ndarray) -> np.ndarray:
        """What to restore: [slices, class, S, S], whose highest score names the class.

        Parameters
        ----------
        scores
            [network, slices, class, S, S], which are averaged.
        """
        return lesion_first(scores.mean(axis=0), self.lesion_threshold)

    def score_batches(
        self, prepared: np.ndarray, progress: str | None = None
    ) -> Iterator[np.ndarray]:
        """The networks' common scores [slices, class, S, S], as `scores_per_network`, decided."""
        for scores in self.scores_per_network(prepared, progress):
            yield self.decide(scores)

    def read(self, scan: Scan, progress: str | None = None) -> Reading:
        """The lesions of a scan and its lungs, on its own grid; works from one slice on.

        Outside the patient there are none, whatever the networks see there.
        """
        prepared, box = prepare(scan, self.image_size)
        seen: list[np.ndarray | None] = []

        def decided() -> Iterator[np.ndarray]:
            for scores, of_batch in self.read_batches(prepared, progress):
                seen.append(of_batch)
                yield self.decide(scores)

        body = body_mask(scan)
        lesions = without_outside(restore(decided(), box, scan), body)
        known = [logits for logits in seen if logits is not None]
        if len(known) < len(seen):
            return Reading(lesions, None)
        logits = large_lungs(np.concatenate(known))
        found = restore([np.stack([np.zeros_like(logits), logits], axis=1)], box, scan)
        inside = without_outside(found, body).labels > 0
        return Reading(lesions, LungMask.like(scan, inside, "network") if inside.any() else None)

    def segment(self, scan: Scan, progress: str | None = None) -> LesionMask:
        """The lesion mask of `read`."""
        return self.read(scan, progress).lesions
