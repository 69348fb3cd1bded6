"""Jobs: a file for each verb of the contract."""
