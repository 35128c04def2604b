"""Run directories: what they record, and how a program is loaded from one."""
