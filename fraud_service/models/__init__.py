"""Models as scorers and the learner use them: data loaded from verified artefacts, never code."""
