"""A study in one file that anybody can check, compute again and run again."""
