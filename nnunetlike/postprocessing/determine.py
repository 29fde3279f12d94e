"""Which structures gain when only their largest component is kept.

First all labels together as one foreground, which is adopted if the mean Dice of one label rises
and none falls; then, on what that left, each label alone, adopted where its mean Dice rises. Every
case is read once: all candidates are scored in memory, and only the chosen one is written. If asked
for, a least size of components is looked for on top (`min_size`).

Source: the procedure and the keys of `postprocessing.json` are nnU-Net v1's (1.7.1).
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nnunetlike.core.errors import DataError
from nnunetlike.core.folders import atomic_folder, visible_files
from nnunetlike.core.parallel import process_map
from nnunetlike.core.serialization import load_json, save_json
from nnunetlike.core.typing import JSON, LabelMap
from nnunetlike.data.geometry import Geometry
from nnunetlike.data.imageio import ending_in, format_of, split_ending
from nnunetlike.evaluation.evaluator import evaluate_pairs, pair_memory, score_case
from nnunetlike.evaluation.summary import CaseScores, Summary, read_summary
from nnunetlike.postprocessing.connected_components import Structure, keep_largest
from nnunetlike.postprocessing.min_size import NO_COMPONENT, best_limits

POSTPROCESSING_FILE = "postprocessing.json"
Pair = tuple[Path, Path]


@dataclass(frozen=True)
class Candidate:
    """Structures to reduce to their largest component, and the mean Dice that gives, by label."""

    structures: tuple[Structure, ...]
    dice: Mapping[str, float]


def determine_postprocessing(
    base: Path,
    references: Path,
    *,
    raw: str = "validation_raw",
    final: str | None = None,
    classes: Sequence[int] | None = None,
    min_size: bool = False,
    processes: int,
) -> JSON:
    """Find the best postprocessing of the predictions in `base/raw`, apply it, and say which.

    Writes `base/postprocessing.json` and the folder `base/final` (predictions after
    postprocessing and their summary.json), each whole or not at all.

    Args:
        base: folder that holds the predictions' folder.
        references: folder with a reference label map for every prediction.
        raw: name of the predictions' folder.
        final: name of the folder to write; `raw` + `_postprocessed` if None.
        classes: foreground labels; those of `base/raw/summary.json` if None.
        min_size: also look for the volume below which a component of a label is better removed.
        processes: most worker processes; 0 or 1 computes in this process.

    Returns:
        The content of postprocessing.json.

    Raises:
        DataError: there are no predictions, or references or the summary are missing.
    """
    final = final or f"{raw}_postprocessed"
    pairs = _pairs(base / raw, references)
    labels = list(classes or foreground_of(scored_labels(base / raw / "summary.json")))
    content = _best(pairs, labels, processes)
    if min_size:
        content.update(_with_sizes(content, pairs, labels, processes))
    content.update(num_samples=len(pairs), validation_raw=raw, validation_final=final)
    with atomic_folder(base / final) as folder:
        targets = [(source, folder / source.name) for source, _ in pairs]
        postprocess_files(targets, content, processes=processes)
        written = [(folder / source.name, reference) for source, reference in pairs]
        summarise(written, labels, folder, base / final, processes=processes)
    save_json(content, base / POSTPROCESSING_FILE, sort_keys=True)
    return content


def apply_postprocessing(
    prediction_file: Path, target_file: Path, postprocessing: Mapping[str, Any]
) -> None:
    """Write a predicted label map after postprocessing.

    Args:
        prediction_file: label map.
        target_file: where to write; may be the same file.
        postprocessing: content of a postprocessing.json.

    Raises:
        DataError: the postprocessing or the file cannot be read.
    """
    image_format = format_of(prediction_file)
    label, geometry = image_format.read_label(prediction_file)
    label = postprocessed(label, geometry, postprocessing)
    image_format.write_label(label, geometry, target_file, like=prediction_file)


def postprocessed(
    label: LabelMap, geometry: Geometry, postprocessing: Mapping[str, Any]
) -> LabelMap:
    """Return a label map (D, H, W) after postprocessing, as `apply_postprocessing` writes it.

    Raises:
        DataError: it is not the content of a postprocessing.json.
    """
    return _reduced(label, geometry, *settings_of(postprocessing))


def load_postprocessing(path: Path) -> JSON:
    """Return the content of a postprocessing.json.

    Raises:
        DataError: the file is missing or is not a postprocessing.
    """
    content: JSON = load_json(path)
    settings_of(content)
    return content


def postprocess_files(
    files: Sequence[Pair], postprocessing: Mapping[str, Any], *, processes: int, title: str = ""
) -> None:
    """Apply a postprocessing to files, given as (prediction, target)."""
    process_map(
        partial(_apply_to_pair, postprocessing=dict(postprocessing)),
        files,
        processes=processes,
        name=_case_name,
        title=title,
        cost=pair_memory,
    )


def _apply_to_pair(pair: Pair, *, postprocessing: Mapping[str, Any]) -> None:
    apply_postprocessing(*pair, postprocessing)


def _best(pairs: Sequence[Pair], labels: list[int], processes: int) -> JSON:
    """Return postprocessing.json without the entries on files."""
    joint: Structure = tuple(labels)
    candidates: list[tuple[Structure, ...]] = [(), (joint,)]
    if len(labels) > 1:
        candidates += [tuple(labels), (joint, *labels)]
    scored = _score(pairs, labels, candidates, processes)
    raw, together = scored[0], scored[1]
    chosen = together if _rises_without_fall(raw, together) else raw
    structures = list(chosen.structures)
    alone: Mapping[str, float] = {}
    if len(labels) > 1:
        alone = scored[3 if chosen is together else 2].dice
        structures += [label for label in labels if alone[str(label)] > chosen.dice[str(label)]]
    return {
        "dc_per_class_raw": dict(raw.dice),
        "dc_per_class_pp_all": dict(together.dice),
        "dc_per_class_pp_per_class": dict(alone),
        "for_which_classes": [list(s) if isinstance(s, tuple) else s for s in structures],
        "min_valid_object_sizes": "None",
    }


def _with_sizes(content: JSON, pairs: Sequence[Pair], labels: list[int], processes: int) -> JSON:
    """Return the entries of postprocessing.json that least sizes change.

    Labels for which a size does better than to keep all components, and than to keep the largest
    alone, get one; the other structures one that no component reaches, as v1's reader wants.
    """
    structures, _ = settings_of(content)
    joint = [structure for structure in structures if isinstance(structure, tuple)]
    dice = dict(content["dc_per_class_pp_all" if joint else "dc_per_class_raw"])
    alone = content["dc_per_class_pp_per_class"]
    dice.update({str(s): alone[str(s)] for s in structures if not isinstance(s, tuple)})
    to_beat = {label: dice[str(label)] for label in labels}
    found = best_limits(pairs, joint, labels, to_beat, processes=processes)
    dice.update({str(label): better for label, (_, better) in found.items()})
    if not found:
        return {"dc_per_class_pp_min_size": dice}
    chosen = [*joint, *(label for label in labels if label in found or label in structures)]
    sizes = {s: found[s][0] if s in found else NO_COMPONENT for s in chosen}
    return {
        "dc_per_class_pp_min_size": dice,
        "for_which_classes": [list(s) if isinstance(s, tuple) else s for s in chosen],
        "min_valid_object_sizes": str(sizes),
    }


def _rises_without_fall(before: Candidate, after: Candidate) -> bool:
    """Tell whether one label gains and none loses; NaN is neither."""
    rises = any(after.dice[label] > value for label, value in before.dice.items())
    return rises and not any(after.dice[label] < value for label, value in before.dice.items())


def _score(
    pairs: Sequence[Pair],
    labels: Sequence[int],
    candidates: Sequence[tuple[Structure, ...]],
    processes: int,
) -> list[Candidate]:
    """Return each candidate with its mean Dice over all cases."""
    by_case = process_map(
        partial(_score_case, labels=labels, candidates=candidates),
        pairs,
        processes=processes,
        name=_case_name,
        title="determining postprocessing",
        cost=pair_memory,
    )
    scored = []
    for number, structures in enumerate(candidates):
        mean = Summary(tuple(case[number] for case in by_case)).mean
        dice = {str(label): mean[str(label)]["Dice"] for label in labels}
        scored.append(Candidate(structures, dice))
    return scored


def _score_case(
    pair: Pair, *, labels: Sequence[int], candidates: Sequence[tuple[Structure, ...]]
) -> list[CaseScores]:
    """Return the scores of one case under each candidate."""
    predicted, wanted = pair
    prediction, geometry = format_of(predicted).read_label(predicted)
    reference, _ = format_of(wanted).read_label(wanted)
    members = {str(label): (label,) for label in labels}
    return [
        CaseScores(
            str(predicted),
            str(wanted),
            score_case(
                _reduced(prediction, geometry, structures, None),
                reference,
                geometry.spacing,
                members,
            ),
        )
        for structures in candidates
    ]


def _reduced(
    label: LabelMap,
    geometry: Geometry,
    structures: Sequence[Structure],
    sizes: Mapping[Structure, float] | None,
) -> LabelMap:
    d, h, w = geometry.spacing
    return keep_largest(label, structures, d * h * w, sizes).label


def settings_of(
    content: Mapping[str, Any],
) -> tuple[list[Structure], dict[Structure, float] | None]:
    """Return the structures and least sizes of a postprocessing.json; v1 keeps sizes as text.

    Raises:
        DataError: this is not the content of one.
    """
    try:
        entries = content["for_which_classes"] or []
        structures: list[Structure] = [
            tuple(int(v) for v in entry) if isinstance(entry, (list, tuple)) else int(entry)
            for entry in entries
        ]
        text = content.get("min_valid_object_sizes")
        sizes = ast.literal_eval(text) if isinstance(text, str) else text
        return structures, None if sizes is None else {k: float(v) for k, v in sizes.items()}
    except (KeyError, TypeError, ValueError, SyntaxError, AttributeError) as error:
        raise DataError(
            f"this is not a postprocessing.json of nnU-Net ({error!r}); make a new one with "
            "nnUNet_determine_postprocessing"
        ) from None


def _pairs(predictions: Path, references: Path) -> list[Pair]:
    if not predictions.is_dir():
        raise DataError(f"{predictions} does not exist; validate the model first")
    files = visible_files(predictions, ending_in(predictions))
    if not files:
        raise DataError(f"{predictions} holds no label map; validate the model first")
    return pair_with_references(files, references)


def pair_with_references(files: Sequence[Path], references: Path) -> list[Pair]:
    """Return each predicted file with the reference of the same name.

    Raises:
        DataError: references are missing.
    """
    missing = [path.name for path in files if not (references / path.name).is_file()]
    if missing:
        raise DataError(f"{references} lacks the references {', '.join(missing[:10])}")
    return [(path, references / path.name) for path in files]


def scored_labels(summary: Path) -> list[int]:
    """Return the labels, background included, that a summary.json scores.

    Raises:
        DataError: the file is missing, is no summary, or scores no label above 0.
    """
    labels = [int(name) for name in read_summary(summary).structures if name.isdigit()]
    if not foreground_of(labels):
        raise DataError(f"{summary} scores no label above 0; evaluate again with foreground labels")
    return labels


def foreground_of(labels: Sequence[int]) -> list[int]:
    """Return the labels that postprocessing may treat: not 0, and not 99, which v1 leaves out."""
    return [label for label in labels if label not in (0, 99)]


def summarise(
    pairs: Sequence[Pair], labels: Sequence[int], folder: Path, home: Path, *, processes: int
) -> None:
    """Write `folder/summary.json` on pairs, with the paths the predictions will have in `home`."""
    found = evaluate_pairs(pairs, labels, processes=processes, title="")
    moved = (
        CaseScores(str(home / Path(case.prediction).name), case.reference, case.scores)
        for case in found.cases
    )
    Summary(tuple(moved)).write(folder / "summary.json")


def _case_name(pair: Pair) -> str:
    return split_ending(pair[0].name)[0]
