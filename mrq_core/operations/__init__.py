"""Code that the command line and a dashboard share: filters, lists, views, bulk changes, checks."""
