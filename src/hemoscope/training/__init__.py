"""Training: datasets, augmentation, synthetic lesions, losses and the loop. Needs the ``train`` extra."""
