"""Masked-language-model pretraining of BERT on packed rows of text."""
