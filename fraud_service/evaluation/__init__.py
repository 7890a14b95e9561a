"""How good scores were: figures, and a page that shows them. Needs the evaluation extra; nothing that serves does."""
