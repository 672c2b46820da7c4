"""Is `predict` as fast as a plain loop of timm and Pillow over the same photographs?

    MELANOMA_DIST_ISIC=... python benchmarks/predict.py RUN --images 400 --rounds 3
    MELANOMA_DIST_ISIC=... python benchmarks/predict.py RUN --images 200 --rounds 3 --megapixels 12

Both take the native photographs of ISIC, repeated or enlarged, and average the same folds over one orientation. The
plain loop opens, resizes and normalises each image in this process, as most scripts do. `predict` also computes hashes,
blur and novelty and knows which images the run was trained on. Each has a process and the settings of its own, loads
everything and predicts a batch before its time starts. In turns, so that other programs disturb both alike.
"""

from __future__ import annotations

from functools import partial

from conditions import run_benchmark

if __name__ == "__main__":
    # Heavy imports come late, so that a wrong setting is told at once.
    from predict_ways import main

    run_benchmark(partial(main, __doc__))
