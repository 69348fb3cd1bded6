-- needs: base, recounting, batch, slots, parameters
-- Removes waiting parameters.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { queue, kind, { parameter, ... } }
-- Answers for each 1, or 0 where the queue does not hold it.

local queue, kind = given[1], given[2]
local key = items_of(queue)
local answers = {}
for index, param in ipairs(given[3]) do
  if kind == '_raw' then
    answers[index] = call('LREM', key, 1, param)
  elseif kind == '_set' then
    answers[index] = call('SREM', key, param)
  else
    answers[index] = call('ZREM', key, param)
    call('HDEL', visits_of(queue), param)
  end
end
return answers
