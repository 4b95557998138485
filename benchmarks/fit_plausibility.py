"""Fits the boosted trees of preprocess/ocr/plausibility.json to polygons with known text.

    python -m benchmarks.text_set_programs facts --set /tmp/choose --out facts.json        in the environment of ocr
    python benchmarks/fit_plausibility.py --facts facts.json --out preprocess/ocr/plausibility.json

Writes  two sets of trees, with and without the reader's facts; a node is [fact, threshold, node up to it, node over
        it], a leaf is what it adds to the log-odds

It prints which share of the marks is found at which number of false alarms on text-free images. Six folds keep the
polygons of an image together. Run it in the environment of requirements/requirements_benchmarks_text.txt.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from preprocess.ocr.plausibility import SHAPE

TREES, DEPTH, RATE = 60, 3, 0.12
LEAST_LEAF, DRAWN = 15, 0.6
FOLDS = 6
DIGITS = 4
ALARMS = (1, 2, 4, 8, 12)

# A polygon of the facts: image, mark or 0, facts of SHAPE and READING.
Row = Sequence[Any]


def booster() -> Any:
    from sklearn.ensemble import GradientBoostingClassifier

    return GradientBoostingClassifier(
        n_estimators=TREES,
        max_depth=DEPTH,
        learning_rate=RATE,
        min_samples_leaf=LEAST_LEAF,
        subsample=DRAWN,
        random_state=0,
    )


def fit(facts: Sequence[Sequence[float]], labels: Sequence[bool]) -> dict[str, Any]:
    """Return the start, which is the log-odds without any fact, and the trees."""
    model = booster().fit(facts, labels)
    share = sum(labels) / len(labels)
    trees = [branch(each[0].tree_, 0) for each in model.estimators_]
    return {"start": round(math.log(share / (1 - share)), DIGITS), "trees": trees}


def branch(tree: Any, node: int) -> Any:
    """Return a node of a scikit-learn tree as nested lists."""
    left, right = int(tree.children_left[node]), int(tree.children_right[node])
    if left == right:
        return round(RATE * float(tree.value[node][0][0]), DIGITS)
    fact, threshold = int(tree.feature[node]), float(f"{tree.threshold[node]:.{DIGITS}g}")
    return [fact, threshold, branch(tree, left), branch(tree, right)]


def judge(name: str, facts: Sequence[Sequence[float]], rows: Sequence[Row]) -> None:
    """Print the marks found at several numbers of false alarms, by cross-validation."""
    from sklearn.model_selection import GroupKFold, cross_val_predict

    groups = [row[0] for row in rows]
    labels = [row[1] > 0 for row in rows]
    odds = cross_val_predict(booster(), facts, labels, groups=groups, cv=GroupKFold(FOLDS), method="predict_proba")[
        :, 1
    ]
    false: defaultdict[int, float] = defaultdict(float)
    found: defaultdict[tuple[int, int], float] = defaultdict(float)
    with_text = {row[0] for row in rows if row[1]}
    for row, plausible in zip(rows, odds, strict=True):
        if row[1]:
            found[row[0], row[1]] = max(found[row[0], row[1]], plausible)
        elif row[0] not in with_text:
            false[row[0]] = max(false[row[0]], plausible)
    surest = sorted(false.values(), reverse=True)
    for alarms in ALARMS:
        share = sum(each > surest[alarms] for each in found.values()) / len(found)
        print(
            f"{name}: {alarms} false alarms, plausibility over {surest[alarms]:.3f}: {share:.3f} of {len(found)} marks"
        )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--facts", type=Path, required=True, metavar="FILE", help="output of the program `facts`")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="output file")
    args = parser.parse_args(argv)
    rows = json.loads(args.facts.read_text(encoding="utf-8"))
    fitted = {}
    for name, length in (("unread", len(SHAPE)), ("read", None)):
        facts = [row[2][:length] for row in rows]
        judge(name, facts, rows)
        fitted[name] = fit(facts, [row[1] > 0 for row in rows])
    args.out.write_text(json.dumps(fitted, separators=(",", ":"), sort_keys=True) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
