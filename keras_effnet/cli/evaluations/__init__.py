"""What `eval` writes and prints, by task: one function per task, which the command looks up in a table."""
