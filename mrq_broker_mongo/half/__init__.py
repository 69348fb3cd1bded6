"""Records of jobs whose queue is in another driver."""
