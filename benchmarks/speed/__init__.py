"""The parts of `peers.py`: data, who takes part, how they are judged and timed, tables."""
