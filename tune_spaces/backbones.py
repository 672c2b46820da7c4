"""Search the backbone: the four of the literature and five newer ones, each with two learning rates.

    python launch.py sweep --space tune_spaces/backbones.py --searcher grid --data DATA --gpus 8

Cost: 18 configurations, which are 90 trainings over 5 folds without early stopping. Early stopping cuts that to about a
seventh (simulated: benchmarks/RESULTS.md). Reason: backbones differ less than splits do, and the newer ones cost a
fraction of the four. Check the interval between the first two of the leaderboard before you trust the winner.

resnet152v2 is Keras's: its published weights need the extra `keras`.
"""

from ray import tune

SPACE = {
    "model.backbone": tune.choice(
        [
            "resnet152v2",
            "inceptionv3",
            "densenet201",
            "inceptionresnetv2",
            "convnext_tiny",
            "convnextv2_nano",
            "efficientnet_b3",
            "tf_efficientnetv2_s",
            "swin_tiny_patch4_window7_224",
        ]
    ),
    "optimizer.lr": tune.choice([1e-4, 3e-4]),
}
