"""Everything that people see in a terminal: progress, results and errors, in whatever encoding it has."""
