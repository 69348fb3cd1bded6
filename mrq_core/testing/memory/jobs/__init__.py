"""Jobs of the model: a file for each verb of the contract."""
