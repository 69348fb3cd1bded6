-- needs: base, batch, slots, parameters
-- Removes waiting parameters. Arguments: { queue, kind, { parameter, ... } }. Answers 1 or 0 for each.

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
