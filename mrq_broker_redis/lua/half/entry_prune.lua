-- needs: base, recounting, batch, slots, uniques, pruning
-- Deletes expired unique keys, unused rates and settled claims of parameters. Forgets names of queues.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { the most of each }
-- No answer.

prune_expired(given[1])
forget_queues(given[1])
return false
