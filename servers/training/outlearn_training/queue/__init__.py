"""The durable run queue: runs as servers see them, seeds as workers claim them, and budgets of device time."""
