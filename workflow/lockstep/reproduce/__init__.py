"""An archived study, run again and compared with its records."""
