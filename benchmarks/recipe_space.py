"""Four factors of the default recipe at once, raced: rate, batch size, pooling and schedule.

    python launch.py sweep --space benchmarks/recipe_space.py --searcher grid --backbone tf_efficientnet_lite0 \\
        --weights WEIGHTS --labels isic2017 --image-size 64 --folds 3 --epochs 6 --grace-epochs 2 --data DATA --gpus 0

RESULTS.md has each factor alone. Here they vary together, because a batch size has a rate of its own.
"""

from ray import tune

SPACE = {
    "optimizer.lr": tune.choice([1.5e-4, 3e-4, 6e-4]),
    "input.batch_size": tune.choice([16, 32]),
    "model.pooling": tune.choice(["avg", "avgmax"]),
    "schedule.schedule": tune.choice(["onecycle", "cosine"]),
}
