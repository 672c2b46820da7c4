"""What sits on the backbone? Pooling, a hidden layer, the norm and dropout.

    python launch.py sweep --space tune_spaces/head.py --backbone densenet201 --trials 24 --data DATA --gpus 8

Cost: as many configurations as --trials says, of 144 in all; 24 over 5 folds would be 120 trainings in full. Why: the
head is cheap to vary and is often copied from natural images, where lesions are not. With --epochs 10 and
--freeze-epochs 10 only heads are trained, on a fixed backbone, at a third of the cost.
"""

from ray import tune

SPACE = {
    "model.pooling": tune.choice(["avg", "max", "avgmax", "gem"]),
    "model.hidden": tune.choice([0, 256, 1024]),
    "model.head_norm": tune.choice(["batch", "none"]),
    "model.dropout": tune.choice([0.0, 0.2, 0.5]),
    "optimizer.head_lr_factor": tune.choice([3.0, 10.0]),
}
