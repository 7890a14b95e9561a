"""Fitting the pretrained model and writing its artefact. Needs the training extra; nothing that serves imports it."""
