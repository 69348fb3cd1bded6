"""What the author of a driver reads: the contracts, their messages and the life of a job."""
