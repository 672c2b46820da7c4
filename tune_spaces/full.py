"""Search everything that matters at once: backbone, input size, rates, schedule, head, augmentation and loss.

    python launch.py sweep --space tune_spaces/full.py --searcher optuna --time-budget 2d --data DATA --gpus 8

Cost: the time budget; the search pays from about 100 configurations on. Reason: varying one field after the other
misses interactions (a larger input needs another rate, another backbone another head). The winner's metrics are
optimistic on the folds that chose it, the more so the more configurations are tried: keep a holdout (`data prepare
--holdout 0.1`). What a classifier sees of an image (`region.py`) is not varied here: it needs a table of lesions.
"""

from ray import tune

SPACE = {
    "model.backbone": tune.choice(
        ["inceptionv3", "densenet201", "inceptionresnetv2", "convnext_tiny", "efficientnet_b3", "tf_efficientnetv2_s"]
    ),
    "model.pooling": tune.choice(["avg", "gem"]),
    "model.dropout": tune.choice([0.0, 0.2, 0.4]),
    "input.image_size": tune.choice([224, 299, 384]),
    "input.batch_size": tune.choice([16, 32, 64]),
    "input.augment": tune.choice(["light", "dermoscopy"]),
    "loss.loss": tune.choice(["bce", "focal"]),
    "loss.focal_gamma": tune.uniform(1.0, 3.0),
    "loss.class_weights": tune.choice(["none", "balanced"]),
    "optimizer.optimizer": tune.choice(["adam", "adamw"]),
    "optimizer.lr": tune.loguniform(3e-5, 3e-3),
    "optimizer.weight_decay": tune.loguniform(1e-5, 1e-1),
    "optimizer.layer_decay": tune.choice([0.8, 1.0]),
    "optimizer.ema_decay": tune.choice([0.0, 0.999]),
    "schedule.schedule": tune.choice(["onecycle", "plateau"]),
}

ONLY_IF = {
    "loss.focal_gamma": {"loss.loss": ["focal"]},
    "optimizer.weight_decay": {"optimizer.optimizer": ["adamw"]},
}
