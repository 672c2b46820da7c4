"""Search augmentation and class balance: strength of augmentation, balanced drawing, class weights and loss.

    python launch.py sweep --space tune_spaces/augmentation.py --searcher grid --backbone densenet201 --data DATA

Cost: 24 configurations, which are 120 trainings over 5 folds without early stopping. Reason: a dermoscopic image has no
up and no left, so flips and rotations are free variety, but the useful strength of colour and crops depends on the
data. Balanced drawing and class weights both correct the same imbalance; the grid shows whether both together overdo
it.
"""

from ray import tune

SPACE = {
    "input.augment": tune.choice(["none", "light", "dermoscopy"]),
    "input.balance": tune.choice([False, True]),
    "loss.class_weights": tune.choice(["none", "balanced"]),
    "loss.loss": tune.choice(["bce", "focal"]),
}
