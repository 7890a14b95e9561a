"""One processor per role: scorer, learner and tokenizer. Each turns a batch of messages into output messages."""
