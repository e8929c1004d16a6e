"""The classes that Python programs use: views of one core for each database in a process."""
