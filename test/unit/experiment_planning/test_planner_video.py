"""How videos are planned, rule by rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from nnunetlike.core.errors import PlanError
from nnunetlike.data.video import VideoFacts
from nnunetlike.experiment_planning.planners import VIDEO_PLANNERS
from nnunetlike.experiment_planning.planners.planner_video import (
    MOST_PIXELS,
    PlannerVideo2D,
    fitting_frame,
)
from nnunetlike.experiment_planning.planners.video_memory import (
    COSTS,
    clip_bytes,
    video_training_bytes,
)
from nnunetlike.experiment_planning.summarize import (
    Memory,
    describe_fingerprint,
    describe_memory,
    plans_table,
)
from nnunetlike.networks import NETWORKS, NetworkTask
from nnunetlike.networks.memory import training_bytes
from nnunetlike.plans.fingerprint import Fingerprint
from nnunetlike.plans.plans import NetworkSize, StagePlan, VideoPlan
from nnunetlike.plans.v1 import plans_from_v1, plans_to_v1

NAME = "ExperimentPlanner_Video2D"
FACTS = VideoFacts(patient="p", labelled_frames=(0, 9), view="4CH", fps=50.0, ed=0, es=9)


def videos(
    *sizes: tuple[int, int, int],
    spacings: Sequence[tuple[float, float]] = ((0.3, 0.3),),
    facts: VideoFacts = FACTS,
    classes: tuple[int, ...] = (1,),
) -> Fingerprint:
    spacings = list(spacings) * len(sizes) if len(spacings) == 1 else spacings
    return Fingerprint(
        sizes=sizes,
        spacings=tuple((999.0, *spacing) for spacing in spacings),
        classes=classes,
        modalities={0: "US"},
        intensities=None,
        size_reductions={f"case_{i}": 0.9 for i in range(len(sizes))},
        videos=(facts,) * len(sizes),
        supervision="edes",
    )


def planned(fingerprint: Fingerprint) -> tuple[StagePlan, VideoPlan]:
    stage = VIDEO_PLANNERS.get(NAME).plan(fingerprint).stage("video2d")
    assert stage.video is not None
    return stage, stage.video


def test_frames_of_112_keep_their_size_and_get_a_fine_memory() -> None:
    stage, video = planned(videos((40, 112, 112)))
    assert stage.patch_size == (112, 112) and stage.spacing == (999, 0.3, 0.3)
    assert video.memory_stride == 8 and video.network_size == "base"
    assert stage.input_size == (10, 112, 112)


def test_large_frames_are_resampled_until_they_fit() -> None:
    stage, video = planned(videos((20, 549, 779)))
    height, width = stage.patch_size
    assert height * width <= MOST_PIXELS and height % 16 == width % 16 == 0
    assert stage.median_shape[1] <= height and stage.median_shape[2] <= width
    assert stage.spacing[1] == stage.spacing[2] > 0.3
    assert stage.original_spacing == (999, 0.3, 0.3) and video.memory_stride == 16


@pytest.mark.parametrize(
    ("frame", "patch"),
    [
        ((256, 256), (256, 256)),
        ((257, 256), (256, 256)),
        ((100, 90), (112, 96)),
        ((48, 48), (48, 48)),
        ((8, 9), (16, 16)),
        ((100, 600), (96, 576)),
    ],
)
def test_a_patch_holds_the_median_frame_in_multiples_of_16(
    frame: tuple[int, int], patch: tuple[int, int]
) -> None:
    coarsening, found = fitting_frame(*frame)
    assert found == patch and coarsening >= 1
    assert all(side / coarsening <= p + 0.5 for side, p in zip(frame, found, strict=True))


def test_small_frames_get_the_small_network() -> None:
    assert planned(videos((8, 48, 96)))[1].network_size == "small"
    assert planned(videos((8, 96, 96)))[1].network_size == "base"


def test_spacings_that_differ_become_one_by_their_geometric_mean() -> None:
    stage, _ = planned(videos((20, 200, 100), spacings=[(0.2, 0.8)]))
    assert stage.spacing[1:] == (0.4, 0.4) and stage.median_shape == (20, 100, 200)


def test_the_spacing_is_the_median_of_the_videos() -> None:
    sizes = [(20, 100, 100)] * 3
    stage, _ = planned(videos(*sizes, spacings=[(0.2, 0.2), (0.3, 0.3), (1, 1)]))
    assert stage.spacing[1:] == (0.3, 0.3)


def test_one_unknown_spacing_makes_the_unit_pixels() -> None:
    assert planned(videos((8, 64, 64)))[1].unit == "mm"
    fingerprint = videos((8, 64, 64), (8, 64, 64))
    unknown = replace(FACTS, spacing_known=False)
    stage, video = planned(replace(fingerprint, videos=(FACTS, unknown)))
    assert video.unit == "px" and stage.spacing[1:] == (0.3, 0.3)


@pytest.mark.parametrize(
    ("frames", "ed", "es", "length"),
    [
        (40, 0, 9, 10),
        (40, 12, 3, 10),
        (40, 0, 1, 4),
        (40, 0, 30, 16),
        (4, 0, 3, 4),
        (2, 0, 1, 2),
        (3, None, None, 3),
        (12, None, 5, 12),
        (40, None, None, 16),
    ],
)
def test_a_clip_lasts_from_end_diastole_to_end_systole(
    frames: int, ed: int | None, es: int | None, length: int
) -> None:
    facts = replace(FACTS, ed=ed, es=es)
    assert planned(videos((frames, 64, 64), facts=facts))[1].clip_length == length


def test_short_videos_lower_the_length_only_if_none_is_longer() -> None:
    assert planned(videos((4, 64, 64), (4, 64, 64), (8, 64, 64)))[1].clip_length == 8


def test_frames_are_taken_between_ed_and_es_only_if_all_have_them() -> None:
    fingerprint = videos((8, 64, 64), (8, 64, 64))
    assert planned(fingerprint)[1].frame_sampling == "uniform_ed_es"
    one_without = replace(fingerprint, videos=(FACTS, replace(FACTS, es=None)))
    assert planned(one_without)[1].frame_sampling == "stride"


def test_supervision_is_that_of_the_task() -> None:
    assert planned(videos((8, 64, 64)))[1].supervision == "edes"


def test_memory_shortens_clips_before_batches_fall_below_two() -> None:
    fingerprint = videos((40, 256, 256), classes=(1, 2, 3), facts=replace(FACTS, es=39))
    lengths = []
    for gigabytes in (4, 8, 16, 40):
        stage = PlannerVideo2D().within(gigabytes).plan(fingerprint).stages[0]
        assert stage.video is not None
        lengths.append((stage.video.clip_length, stage.batch_size))
        need, _ = video_training_bytes("base", 16, 256**2, 4, stage.batch_size * lengths[-1][0])
        assert need <= gigabytes * 1e9
    assert lengths == [(5, 2), (10, 2), (16, 2), (16, 7)]


def test_what_does_not_fit_at_all_is_refused() -> None:
    with pytest.raises(PlanError, match=r"two clips of 4 frames of 256 x 256 .* 1 GB; they need 1"):
        PlannerVideo2D().within(1).plan(videos((40, 256, 256)))


def test_a_batch_has_at_most_sixteen_clips() -> None:
    assert planned(videos((8, 48, 48)))[0].batch_size == 16


def test_plans_for_another_device_have_names_of_their_own() -> None:
    planner = PlannerVideo2D().within(24)
    assert planner.plans_identifier == "nnUNetPlansv2.1_fit24GB"
    assert planner.data_identifier == "nnUNetData_plans_v2.1_video2D_fit24GB"


def test_plans_survive_their_file_and_pool_four_times() -> None:
    fingerprint = videos((20, 130, 200), classes=(1, 2, 3))
    plans = VIDEO_PLANNERS.get(NAME).plan(fingerprint)
    assert plans_from_v1(plans_to_v1(plans)) == plans
    assert plans.stages[0].topology.divisor == (16, 16)
    assert plans.transpose_forward == (0, 1, 2)
    assert plans.use_mask_for_norm == {0: True} and plans.normalization_schemes == {0: "nonCT"}


def test_what_cannot_be_planned_is_refused() -> None:
    planner = VIDEO_PLANNERS.get(NAME)
    with pytest.raises(PlanError, match="too few for a network"):
        planner.plan(videos((8, 7, 64)))
    with pytest.raises(PlanError, match="no video to plan for"):
        planner.plan(replace(videos((8, 64, 64)), videos=None))


def test_videos_are_described() -> None:
    facts = replace(FACTS, spacing_known=False)
    other = replace(facts, patient="q", view="2CH", ed=None)
    fingerprint = replace(videos((20, 112, 110), (30, 112, 112)), videos=(facts, other))
    text = describe_fingerprint(fingerprint)
    for line in (
        "videos          2 of 2 patients",
        "views           2CH 1, 4CH 1",
        "frames          20 to 30, median 25",
        "frames per s    50",
        "labelled        2 frames; supervision edes",
        "ED to ES        10 frames, known in 1 of 2",
        "width           110 to 112, median 111 px after cropping",
        "spacing         unknown in 2 of 2",
        "cropping kept   90%",
    ):
        assert line in text


def test_classes_are_counted_where_the_labels_are_known() -> None:
    text = describe_fingerprint(
        videos((8, 64, 64), (8, 64, 64), classes=(1, 2)), {"a": (-1, 0, 1), "b": (0, 1, 3)}
    )
    assert "labels          1 in 2 of 2, 2 in 0 of 2, and 0 for background" in text


def test_the_plan_is_told() -> None:
    plans = VIDEO_PLANNERS.get(NAME).plan(videos((20, 112, 112)))
    text = plans_table(plans)
    for line in (
        "video2d (stage 0)",
        "clip length       10 frames",
        "frame sampling    uniform_ed_es (supervision edes)",
        "network size      base",
        "memory            196 tokens (14 x 14, one per 8 x 8 px)",
        "spacing, mm       0.3 x 0.3",
    ):
        assert line in text
    assert "GDKVM" in describe_memory(plans, Memory("GPU", 8 * 10**9))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "stride", "frame"),
    [("base", 16, (128, 144)), ("base", 8, (96, 96)), ("small", 8, (48, 64))],
)
def test_the_reckoned_memory_is_what_the_network_needs(
    size: NetworkSize, stride: int, frame: tuple[int, int]
) -> None:
    topology = planned(videos((8, 64, 64)))[0].topology
    task = NetworkTask(
        channels=1, classes=3, topology=topology, base_features=32, memory_stride=stride,
        network_size=size,
    )  # fmt: skip
    two = training_bytes(NETWORKS.get("gdkvm")(), task, (2, *frame), 1)
    three = training_bytes(NETWORKS.get("gdkvm")(), task, (3, *frame), 1)
    pixels = frame[0] * frame[1]
    assert clip_bytes(size, stride, pixels, 3) == pytest.approx(three - two, rel=0.1)
    fixed = two - 2 * (three - two)  # with one moment; the reckoning has two
    assert fixed < COSTS[size, stride].fixed < 2 * fixed
