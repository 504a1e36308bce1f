"""Starting processes, and what they run on. Standard library only, except `place`."""
