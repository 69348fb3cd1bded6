-- needs: base, batch, slots, uniques, pruning
-- Deletes what says nothing any more. Arguments: { how many of each at most }.

prune_quiet(given[1])
return false
