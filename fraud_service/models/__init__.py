"""The models of scorers and learner, loaded from verified artifacts that contain no code."""
