"""Check the topics: nothing lost, doubled, reordered or altered; every decision made again, bit for bit."""
