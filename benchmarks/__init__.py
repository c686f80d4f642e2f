"""Speed and memory against the peers, in one process, alternating. In no distribution; nothing imports it."""
