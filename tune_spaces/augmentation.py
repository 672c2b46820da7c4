"""How much should images vary, and should rare labels be drawn more often?

    python launch.py sweep --space tune_spaces/augmentation.py --searcher grid --backbone densenet201 --data DATA

Cost: 24 configurations, 120 trainings in full over 5 folds. Why: dermoscopy has no up and no left, so flips and
rotations are free variety; how strongly colour and crops may change is a question of the data. Drawing labels equally
often and weighting them in the loss answer the same imbalance: both at once may overdo it, which this grid shows.
"""

from ray import tune

SPACE = {
    "input.augment": tune.choice(["none", "light", "dermoscopy"]),
    "input.balance": tune.choice([False, True]),
    "loss.class_weights": tune.choice(["none", "balanced"]),
    "loss.loss": tune.choice(["bce", "focal"]),
}
