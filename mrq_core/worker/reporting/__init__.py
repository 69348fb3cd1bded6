"""What a worker tells of itself: reports, stacks, profiles, the admin port, and answers to requests."""
