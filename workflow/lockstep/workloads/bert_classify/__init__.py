"""Fine-tuning of BERT: sentences, or pairs of them, to classes."""
