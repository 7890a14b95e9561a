"""One step per role: scorer, learner and tokenizer. Messages in, messages out."""
