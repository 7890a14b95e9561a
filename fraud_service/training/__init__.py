"""Train the pretrained model and write its artifact. Needs the `training` extra; serving code never imports it."""
