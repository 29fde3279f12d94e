"""What the low resolution says of its validation cases, for the full resolution of a cascade."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
from torch import nn
from tqdm import tqdm

from nnunetlike.core.team import ALONE, Team
from nnunetlike.data.previous_stage import PreviousStage
from nnunetlike.data.store import CaseStore
from nnunetlike.inference.fallback import predict_slabs
from nnunetlike.inference.strategies import STRATEGIES, Request
from nnunetlike.inference.streaming import settled
from nnunetlike.inference.validate import prediction_mode
from nnunetlike.preprocessing.label_stream import LabelStream


def predict_next_stage(
    network: nn.Module,
    low: CaseStore,
    full: CaseStore,
    case_ids: Sequence[str],
    output: PreviousStage,
    *,
    request: Request,
    strategy: str,
    team: Team = ALONE,
) -> None:
    """Write the segmentation of each case on the grid of the full resolution.

    Args:
        network: of the low resolution, in any mode; it comes back in the mode it had.
        low: preprocessed cases of the low resolution.
        full: those of the full resolution, which tell the grid.
        case_ids: cases to predict.
        output: gets a file per case.
        request: how to predict.
        strategy: name of the way to predict.
        team: processes that share the cases.

    Raises:
        DataError: a case is missing.
        ResourceError: a device's memory or the disk does not suffice.

    Source: nnU-Net v1: probabilities are interpolated linearly, along a coarse axis too.
    """
    own = case_ids[team.rank :: team.world_size]
    bar = tqdm(
        own, desc="for the next stage", unit="case", disable=None if team.rank == 0 else True
    )
    with prediction_mode(network):
        for case in bar:
            image = np.array(low.load(case)[:-1], np.float32)
            slabs = predict_slabs(STRATEGIES.get(strategy), network, image, request)
            record = full.record(case)
            shape = record.size_after_resampling or record.size_after_cropping
            target = LabelStream(image.shape[1:], shape, cast(int, network.classes))
            output.write(case, settled(slabs, target, device=request.device.type).astype(np.uint8))
    team.meet(f"predictions for the next stage in {output.folder}")
