"""Real-time fraud detection on Kafka: a pretrained and an online model side by side, learning from delayed labels."""

__version__ = "0.1.0"
