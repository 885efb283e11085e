"""SafeMIL itself: bags -> step cost -> weights -> cloned policy."""
