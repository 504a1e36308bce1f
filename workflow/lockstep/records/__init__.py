"""What a study has recorded, read without trusting it: runs, parity verdicts, deployments."""
