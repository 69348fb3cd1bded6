-- needs: base
-- Reads the columns of jobs that a filter tests.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { { id, ... }, whether params are wanted }
-- Answers { now, row or nil, ... }; a row: queue, path, status, worker, exception type, schedule, expiry, the time of
-- queueing, params with their length.

local answers = { digits(now) }
for _, id in ipairs(given[1]) do
  local row
  if given[2] then
    row = call('HMGET', K .. 'j:' .. id, 'q', 'h', 's', 'w', 'g', 'y', 'x', 'Q')
    if row[1] then
      row[9] = params_in(call('GET', K .. 'r:' .. id))
    end
  else
    row = call('HMGET', K .. 'j:' .. id, 'q', 'h', 's', 'w', 'g', 'y', 'x', 'Q')
  end
  answers[#answers + 1] = row[1] and row
end
return answers
