"""The evaluation server: scores receipts, keeps budgets and the leaderboard."""
