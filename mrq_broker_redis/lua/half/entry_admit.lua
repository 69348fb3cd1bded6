-- needs: base, recounting, batch, slots, parameters, uniques, entries
-- Replaces claimed parameters of a raw queue by the claimed entries of their jobs.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { queue, lease in ms, queues, { { parameter, entry }, ... } }
--   queues, entry: as in push_entry() of entries
-- Answers for each 1, or 0 where the claim is over.

local queue, until_ms, queues = given[1], digits(now + given[2]), given[3]
local answers = {}
for index, one in ipairs(given[4]) do
  local param, entry = one[1], one[2]
  local id, token = entry[1], entry[6]
  if admit(queue, param, id, token) then
    push_entry(queues, entry, until_ms)
  end
  answers[index] = call('HGET', entry_key(id), 't') == token and 1 or 0
end
flush()
return answers
