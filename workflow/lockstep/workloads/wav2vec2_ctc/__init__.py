"""Recognition of speech by Wav2Vec2 and connectionist temporal classification."""
