"""Many finished runs → leaderboard, paper tables. Reads files only: no torch."""
