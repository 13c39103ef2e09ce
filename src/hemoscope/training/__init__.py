"""Training: dataset, augmentation, lesions, losses and the loop. Needs the ``train`` extra."""
