"""Fitting the pretrained model and writing its artifact. Needs the training extra; nothing that serves imports it."""
