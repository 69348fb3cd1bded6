-- needs: base
-- Counts the entries of queues.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { queue, ... }
-- Answers for each { waiting, due, claimed, earliest due time of a due entry or nil }. Expired leases count as waiting.

local answers = {}
for index, queue in ipairs(given) do
  local waiting, due, oldest = tonumber(try('HGET', K .. 'parked-in', queue) or 0) or 0, 0, nil
  local function consider(line)
    local number = call('ZCOUNT', line, '-inf', now)
    if number > 0 then
      due = due + number
      local head = tonumber(call('ZRANGE', line, 0, 0, 'WITHSCORES')[2])
      oldest = oldest and math.min(oldest, head) or head
    end
    return number
  end
  for _, rank in ipairs(ranks()) do
    local line = waiting_line(queue, rank)
    local size = call('ZCARD', line)
    if size > 0 then
      waiting = waiting + size
      consider(line)
    end
  end
  local suspects = consider(claimed_line(queue))
  local claimed = call('ZCARD', claimed_line(queue)) - suspects
  answers[index] = { waiting + suspects, math.min(due, 10000), claimed, oldest and digits(oldest) or false }
end
return answers
