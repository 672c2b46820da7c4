"""Search the optimizer: rates, weight decay, schedule, batch size, layer-wise decay and weight averaging.

    python launch.py sweep --space tune_spaces/optimizer.py --backbone densenet201 --trials 40 --data DATA --gpus 8

Cost: --trials configurations; 40 over 5 folds are 200 trainings without early stopping. Reason: the learning rate
matters most here, so it spans three decades; --searcher optuna pays from about 30 configurations on. Larger batches
need another rate, so both vary together.
"""

from ray import tune

SPACE = {
    "optimizer.optimizer": tune.choice(["adam", "adamw"]),
    "optimizer.lr": tune.loguniform(3e-5, 3e-3),
    "optimizer.head_lr_factor": tune.choice([1.0, 3.0, 10.0, 30.0]),
    "optimizer.layer_decay": tune.choice([0.65, 0.8, 1.0]),
    "optimizer.weight_decay": tune.loguniform(1e-6, 1e-1),
    "optimizer.ema_decay": tune.choice([0.0, 0.999]),
    "optimizer.freeze_epochs": tune.choice([0, 1]),
    "input.batch_size": tune.choice([16, 32, 64]),
    "schedule.schedule": tune.choice(["plateau", "cosine", "onecycle"]),
    "schedule.warmup_epochs": tune.choice([0.5, 1.0, 2.0]),
    "schedule.plateau_factor": tune.choice([0.1, 0.3, 0.5]),
    "schedule.plateau_patience": tune.choice([2, 4]),
}

# Adam adds weight decay to the gradient as an L2 penalty, which seldom helps: only AdamW varies it.
ONLY_IF = {
    "optimizer.weight_decay": {"optimizer.optimizer": ["adamw"]},
    "schedule.warmup_epochs": {"schedule.schedule": ["plateau", "cosine"]},
    "schedule.plateau_factor": {"schedule.schedule": ["plateau"]},
    "schedule.plateau_patience": {"schedule.schedule": ["plateau"]},
}
