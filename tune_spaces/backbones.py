"""Which backbone? The literature's four and five newer ones, each with two learning rates.

    python launch.py sweep --space tune_spaces/backbones.py --searcher grid --data DATA --gpus 8

Cost: 18 configurations. Their full 5-fold cross-validation is 90 trainings; ASHA and the race over folds leave about a
fifth of that (simulated: benchmarks/RESULTS.md). Why: backbones differ less than splits do, so look at the interval
between the first two of the leaderboard before believing in a winner; the newer ones cost a fraction of the four.

resnetv2_152 has no published ImageNet weights in timm, so it stands here as the ResNetV2 that has.
"""

from ray import tune

SPACE = {
    "model.backbone": tune.choice(
        [
            "resnetv2_101",
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
    "optimizer.lr": tune.choice([3e-5, 3e-4]),
}
