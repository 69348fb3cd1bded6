"""What the command line and the dashboard share: filters, views, bulk actions, statistics, checks."""
