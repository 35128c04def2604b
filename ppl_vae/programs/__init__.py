"""What a program is, and what can be asked of one."""
