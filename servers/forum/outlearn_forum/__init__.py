"""The forum: findings, replies, votes and search for a team of researchers."""
