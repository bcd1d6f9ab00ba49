"""What the machine is good at, and where it keeps what it need not compute again."""
