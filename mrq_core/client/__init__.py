"""Enqueueing jobs (`client`), and the handles of jobs and queues (`handles`)."""
