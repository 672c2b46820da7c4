"""Search the head on the backbone: pooling, a hidden layer, the norm and dropout.

    python launch.py sweep --space tune_spaces/head.py --backbone densenet201 --trials 24 --data DATA --gpus 8

Cost: --trials configurations of 144; 24 over 5 folds are 120 trainings without early stopping. Reason: the head is
cheap to vary, and most heads are copied from natural images, which are not lesions. With --epochs 10 and
--freeze-epochs 10 the sweep trains only heads on a frozen backbone, at a third of the cost.
"""

from ray import tune

SPACE = {
    "model.pooling": tune.choice(["avg", "max", "avgmax", "gem"]),
    "model.hidden": tune.choice([0, 256, 1024]),
    "model.head_norm": tune.choice(["batch", "none"]),
    "model.dropout": tune.choice([0.0, 0.2, 0.5]),
    "optimizer.head_lr_factor": tune.choice([1.0, 3.0]),
}
