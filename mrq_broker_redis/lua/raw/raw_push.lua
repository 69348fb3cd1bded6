-- needs: base, recounting, batch, slots, parameters
-- Adds parameters.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { queue, kind, { { parameter, score or '' }, ... } }
-- Answers for each 1, or 0 where a set holds the parameter already.

local queue, kind, items = given[1], given[2], given[3]
local key = items_of(queue)
local answers = {}
for index, item in ipairs(items) do
  if kind == '_raw' then
    call('RPUSH', key, item[1])
    answers[index] = 1
  elseif kind == '_set' then
    answers[index] = call('SADD', key, item[1])
  else
    local score = item[2]
    if score == '' then
      score = kind == '_timed_set' and seconds(now) or 0
    end
    answers[index] = call('ZADD', key, score, item[1])
  end
  wake(queue)
end
call('ZADD', K .. 'queues', 0, queue)
call('ZADD', K .. 'raw-names', 0, queue)
flush()
return answers
