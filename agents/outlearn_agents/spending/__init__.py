"""What a team spends, and the budgets that hold before it is spent."""
