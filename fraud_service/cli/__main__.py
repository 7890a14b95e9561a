"""`python -m fraud_service.cli`: what the console script runs."""

from fraud_service.cli import main

main()
