"""Search the segmenter: encoder, rates, batch, input size, loss and augmentation.

    python launch.py segment sweep --space tune_spaces/segmentation.py --trials 24 --data DATA --gpus 8

Cost: --trials configurations; 24 over 5 folds are 120 trainings without early stopping. An epoch at 384 pixels costs
about twice that at 256. Reason: the mean Jaccard index depends on the encoder and on the size that it sees;
cross-entropy, Dice and focal Tversky weigh errors differently; a larger input or batch needs another rate. --searcher
optuna pays from about 30 configurations on.
"""

from ray import tune

SPACE = {
    "model.backbone": tune.choice(["resnet34", "efficientnet_b3", "densenet121", "convnext_tiny"]),
    "input.image_size": tune.choice([256, 384]),
    "input.batch_size": tune.choice([8, 16, 32]),
    "input.augment": tune.choice(["light", "dermoscopy"]),
    "loss.dice_weight": tune.choice([0.0, 0.5, 0.8]),
    "loss.tversky_weight": tune.choice([0.0, 0.5]),
    "optimizer.lr": tune.loguniform(1e-4, 3e-3),
    "optimizer.head_lr_factor": tune.choice([1.0, 2.0, 5.0]),
}
