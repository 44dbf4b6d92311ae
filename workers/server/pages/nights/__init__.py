"""Pages of nights: schedules, a calendar of their runs, what their gates measured, and what an operator may do."""
