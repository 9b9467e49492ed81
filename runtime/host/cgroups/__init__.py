"""Control groups of the VMM process: where they are (paths), what to write (resources), doing it (manager)."""
