"""Models as scorers and the learner use them: data loaded from verified artifacts, never code."""
